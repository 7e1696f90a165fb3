// What the user chose for the window itself. It is kept in the web view's own storage: it is no secret and no policy.
import { setLanguage } from "./i18n/index.svelte";

export type Theme = "system" | "light" | "dark";

const read = (key: string): string | null => {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
};

const write = (key: string, value: string): void => {
  try {
    localStorage.setItem(key, value);
  } catch {
    // Without storage the choice lasts as long as the window.
  }
};

const isTheme = (value: string | null): value is Theme => value === "system" || value === "light" || value === "dark";

class Settings {
  theme = $state<Theme>("system");
  language = $state<string>("system");

  load(): void {
    const theme = read("theme");
    this.theme = isTheme(theme) ? theme : "system";
    this.language = read("language") ?? "system";
    setLanguage(this.language === "system" ? null : this.language);
    const dark = window.matchMedia("(prefers-color-scheme: dark)");
    dark.addEventListener("change", () => this.paint());
    this.paint();
  }

  setTheme(theme: Theme): void {
    this.theme = theme;
    write("theme", theme);
    this.paint();
  }

  setLanguage(language: string): void {
    this.language = language;
    write("language", language);
    setLanguage(language === "system" ? null : language);
  }

  private paint(): void {
    const dark =
      this.theme === "dark" || (this.theme === "system" && window.matchMedia("(prefers-color-scheme: dark)").matches);
    document.documentElement.dataset["theme"] = dark ? "dark" : "light";
  }
}

export const settings = new Settings();
