// What goes over each strand in a second, from the counters of two moments.
import type { PathStatus } from "./generated/ipc";
import { t } from "./i18n/index.svelte";

export type Rate = { readonly down: number; readonly up: number };
export type Rates = Readonly<Record<string, Rate>>;
export type Counted = { readonly at: number; readonly paths: Readonly<Record<string, { bytesIn: number; bytesOut: number }>> };

/** What tells one strand from another. */
export const nameOf = (path: PathStatus): string => `${path.interface} ${path.local} ${path.remote}`;

/** The place of each strand in the picture, and so its colour: kept for as long as the connection is, also while it is gone. */
export type Places = Readonly<Record<string, number>>;

// The port is another one whenever the socket is.
const strandOf = (path: PathStatus): string => `${path.interface} ${path.remote.slice(0, path.remote.lastIndexOf(":"))}`;

/** New strands come behind those that were there. */
export const placed = (before: Places, paths: readonly PathStatus[]): Places => {
  const found: Record<string, number> = { ...before };
  for (const path of paths) found[strandOf(path)] ??= Object.keys(found).length;
  return found;
};

/** The place of a strand; the first when nobody placed it. */
export const placeOf = (places: Places, path: PathStatus): number => places[strandOf(path)] ?? 0;

/** The counters at a moment, in milliseconds. */
export const count = (paths: readonly PathStatus[], at: number): Counted => ({
  at,
  paths: Object.fromEntries(paths.map((path) => [nameOf(path), { bytesIn: path.bytes_in, bytesOut: path.bytes_out }])),
});

/** Bytes a second between two moments. Counters that began anew, as a rekey may make them, count from zero. */
export const rates = (before: Counted, after: Counted): Rates => {
  const seconds = (after.at - before.at) / 1000;
  const found: Record<string, Rate> = {};
  for (const [name, now] of Object.entries(after.paths)) {
    const then = before.paths[name];
    if (then === undefined || seconds <= 0) continue;
    const grown = (from: number, to: number): number => (to >= from ? to - from : to) / seconds;
    found[name] = { down: grown(then.bytesIn, now.bytesIn), up: grown(then.bytesOut, now.bytesOut) };
  }
  return found;
};

/** How thick a strand is drawn, for what goes over it: each tenfold is a step. */
export const thickness = ({ down, up }: Rate): number => Math.min(9, 2.5 + Math.log10(1 + (down + up) / 1000) * 1.6);

/** A round trip in words; a network in the same house answers in less than a millisecond, which is not none. */
export const roundTrip = (ms: number): string =>
  ms < 1 ? t("paths.rtt.least") : t("paths.rtt", { ms: Math.round(ms) });
