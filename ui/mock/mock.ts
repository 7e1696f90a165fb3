// The window without the program, to work on its looks: `npm run dev`, then /mock/?scene=connected (or another scene).
import { emit } from "@tauri-apps/api/event";
import { mockIPC } from "@tauri-apps/api/mocks";
import type { TrafficView } from "../src/lib/generated/app";
import { scene } from "./scenes";

const query = new URLSearchParams(location.search);
const view = scene(query.get("scene") ?? "disconnected");

mockIPC(
  (command) => {
    if (command === "view") return view;
    return undefined;
  },
  { shouldMockEvents: true },
);
for (const key of ["theme", "language"]) {
  const value = query.get(key);
  if (value !== null) localStorage.setItem(key, value);
}

await import("../src/main");

let bytesIn = 0;
let bytesOut = 0;
const tick = async (second: number): Promise<void> => {
  const down = 900_000 + 700_000 * Math.sin(second / 5) + 300_000 * Math.sin(second * 1.7) ** 2;
  const up = 180_000 + 120_000 * Math.sin(second / 3 + 1);
  bytesIn += down;
  bytesOut += up;
  const traffic: TrafficView = { profile: view.status.profile ?? "", bytes_in: bytesIn, bytes_out: bytesOut, in_per_second: down, out_per_second: up };
  await emit("traffic", traffic);
};
setTimeout(async () => {
  for (let second = 0; second < 48; second += 1) await tick(second);
  let second = 48;
  setInterval(() => void tick(second++), 1000);
}, 150);
