// @vitest-environment node
import { expect, test } from "vitest";
import { duration, rate, size } from "../src/lib/format";

test("amounts have three digits at most, and never a thousand of a unit", () => {
  expect(size(0, "en")).toBe("0 B");
  expect(size(999, "en")).toBe("999 B");
  expect(size(1500, "en")).toBe("1.5 kB");
  expect(size(999_900, "en")).toBe("1.0 MB");
  expect(size(20_000_000, "en")).toBe("20.0 MB");
  expect(size(20_000_000, "de")).toBe("20,0 MB");
  expect(size(123_456_789, "en")).toBe("123 MB");
  expect(size(5e15, "en")).toMatch(/ TB$/);
});

test("speeds are amounts a second", () => {
  expect(rate(2500, "en")).toBe("2.5 kB/s");
});

test("time is read like a clock, with hours and days when there are some", () => {
  expect(duration(-5)).toBe("0:00");
  expect(duration(61_000)).toBe("1:01");
  expect(duration(3_661_000)).toBe("1:01:01");
  expect(duration(90_061_000)).toBe("1d 1:01:01");
});
