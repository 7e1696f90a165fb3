// @vitest-environment node
import { expect, test } from "vitest";
import { area, ceiling, curve, keep, push, type Sample } from "../src/lib/traffic";

const sample = (down: number): Sample => ({ down, up: 0 });

test("only the last minute is kept", () => {
  let samples: Sample[] = [];
  for (let i = 0; i < keep + 5; i += 1) samples = push(samples, sample(i));
  expect(samples).toHaveLength(keep);
  expect(samples[0]?.down).toBe(5);
});

test("the scale is round, holds the peak, and does not blow up silence", () => {
  expect(ceiling([])).toBe(10_000);
  expect(ceiling([sample(3)])).toBe(10_000);
  expect(ceiling([sample(1_300_000)])).toBe(2_000_000);
  expect(ceiling([sample(2_000_000)])).toBe(2_000_000);
  expect(ceiling([{ down: 0, up: 7_000_000 }])).toBe(10_000_000);
});

test("the newest sample is at the right edge, and nothing leaves the picture", () => {
  expect(curve([], 10, 600, 120)).toBe("");
  const d = curve([0, 10, 99], 10, 600, 120);
  expect(d).toMatch(/600\.0 0\.0$/);
  for (const y of d.replace(/[MC]/g, " ").trim().split(/\s+/).filter((_, i) => i % 2 === 1)) {
    expect(Number(y)).toBeGreaterThanOrEqual(0);
    expect(Number(y)).toBeLessThanOrEqual(120);
  }
  expect(area([1], 10, 600, 120)).toBe("");
  expect(area([1, 2], 10, 600, 120)).toMatch(/Z$/);
});
