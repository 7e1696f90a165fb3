import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vitest/config";

// The pages are built into the program and read from there: no server, no assets from elsewhere, nothing inlined that
// the content security policy would have to make an exception for.
export default defineConfig(({ mode }) => ({
  plugins: [svelte()],
  clearScreen: false,
  server: { port: 5173, strictPort: true },
  build: { target: "safari16", assetsInlineLimit: 0, modulePreload: { polyfill: false }, cssCodeSplit: false, chunkSizeWarningLimit: 300 },
  ...(mode === "test" ? { resolve: { conditions: ["browser"] } } : {}),
  test: { environment: "happy-dom", include: ["tests/**/*.test.ts"], testTimeout: 30_000 },
}));
