// The translation table: which language is shown, and the text of a key in it.
import { de } from "./de";
import { en, type TextKey, type Texts } from "./en";
import { es } from "./es";
import { fr } from "./fr";
import { ja } from "./ja";

export type { TextKey } from "./en";

/** The languages there are, each by its own name. */
export const languages = { en: "English", de: "Deutsch", es: "Español", fr: "Français", ja: "日本語" } as const;
export type Language = keyof typeof languages;

export const tables: Record<Language, Texts> = { en, de, es, fr, ja };

const isLanguage = (value: string): value is Language => value in languages;

/** The first of the desktop's languages that there is a table for. */
export const languageOf = (wanted: readonly string[]): Language => {
  for (const tag of wanted) {
    const base = tag.split("-")[0]?.toLowerCase() ?? "";
    if (isLanguage(base)) return base;
  }
  return "en";
};

let language = $state<Language>(languageOf(navigator.languages));

export const currentLanguage = (): Language => language;

/** Shows another language; `null` is the desktop's own. */
export const setLanguage = (wanted: string | null): void => {
  language = wanted !== null && isLanguage(wanted) ? wanted : languageOf(navigator.languages);
  document.documentElement.lang = language;
};

/** The text of a key, with its `{places}` filled in. */
export const t = (key: TextKey, values: Record<string, string | number> = {}): string =>
  tables[language][key].replace(/\{(\w+)\}/g, (place, name: string) => String(values[name] ?? place));

/** What the tray needs of the table, for the program to keep. */
export const trayTexts = (): Record<string, string> => {
  const keys = (Object.keys(en) as TextKey[]).filter((key) => /^(app|state|tray|action)\./.test(key));
  return Object.fromEntries(keys.map((key) => [key, t(key)]));
};

/** The text of a key that is put together at run time, or null when no table has it. */
export const maybe = (key: string): string | null => (key in en ? t(key as TextKey) : null);
