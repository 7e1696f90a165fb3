import { expect, test } from "vitest";
import { scene } from "../mock/scenes";
import { count, nameOf, placed, placeOf, rates, thickness } from "../src/lib/strands";

const paths = scene("strands").status.paths;
const first = paths[0];
if (first === undefined) throw new Error("the scene has strands");
const name = nameOf(first);

test("a strand's speed is what its counters grew by in the time between", () => {
  const later = { ...first, bytes_in: first.bytes_in + 3000, bytes_out: first.bytes_out + 500 };
  expect(rates(count([first], 1000), count([later], 3000))[name]).toEqual({ down: 1500, up: 250 });
});

test("a strand that stands still has a speed of zero, and a new one none yet", () => {
  expect(rates(count([first], 1000), count([first], 2000))[name]).toEqual({ down: 0, up: 0 });
  expect(rates(count([], 1000), count([first], 2000))).toEqual({});
});

test("counters that began anew never give a negative speed", () => {
  const anew = { ...first, bytes_in: 700, bytes_out: 0 };
  expect(rates(count([first], 1000), count([anew], 2000))[name]).toEqual({ down: 700, up: 0 });
});

test("more traffic is drawn thicker, within bounds", () => {
  const widths = [0, 1e4, 1e6, 1e12].map((down) => thickness({ down, up: 0 }));
  expect([...widths].sort((a, b) => a - b)).toEqual(widths);
  expect(widths[0]).toBe(2.5);
  expect(widths[3]).toBe(9);
});

test("a strand keeps its place while others come and go, and when it comes back by another port", () => {
  const [wifi, wired] = paths;
  if (wifi === undefined || wired === undefined) throw new Error("the scene has two strands");
  const both = placed({}, [wifi, wired]);
  const left = placed(both, [wired]);
  const back = placed(left, [wired, { ...wifi, local: "192.0.2.10:41234", remote: "203.0.113.7:4501" }]);
  expect([placeOf(left, wired), placeOf(back, wifi), Object.keys(back).length]).toEqual([1, 0, 2]);
});
