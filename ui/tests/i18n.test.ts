import { afterEach, expect, test } from "vitest";
import { en } from "../src/lib/i18n/en";
import { currentLanguage, languageOf, languages, setLanguage, t, tables, trayTexts } from "../src/lib/i18n/index.svelte";

afterEach(() => setLanguage("en"));

const places = (text: string): string[] => (text.match(/\{\w+\}/g) ?? []).sort();

test("every language has every text, with the same places to fill in", () => {
  for (const [language, table] of Object.entries(tables)) {
    expect(Object.keys(table).sort(), language).toEqual(Object.keys(en).sort());
    for (const [key, text] of Object.entries(table)) {
      expect(text.trim(), `${language} ${key}`).not.toBe("");
      expect(places(text), `${language} ${key}`).toEqual(places(en[key as keyof typeof en]));
    }
  }
});

test("places are filled in, and an unknown one stays", () => {
  expect(t("line.for", { time: "1:01" })).toBe("for 1:01");
  expect(t("line.for")).toBe("for {time}");
});

test("the desktop's languages are tried in their order", () => {
  expect(languageOf(["xx-YY", "en-GB"])).toBe("en");
  expect(languageOf([])).toBe("en");
  for (const language of Object.keys(languages)) expect(languageOf([`${language}-XX`, "en"])).toBe(language);
});

test("the tray gets what it needs, in the language shown", () => {
  setLanguage("en");
  expect(currentLanguage()).toBe("en");
  const texts = trayTexts();
  for (const key of ["app.name", "state.connected", "tray.quit", "tray.absent", "action.connect"]) expect(texts[key]).toBeTruthy();
  expect(texts["prompt.password"]).toBeUndefined();
});
