// The last minute of traffic, one sample a second, and the curve drawn from it.

export type Sample = { readonly down: number; readonly up: number };

export const keep = 60;

/** The samples after one more has come; the oldest goes. */
export const push = (samples: readonly Sample[], sample: Sample): Sample[] => [...samples, sample].slice(-keep);

/** The top of the scale: a round number over the highest sample, and never so small that noise fills the picture. */
export const ceiling = (samples: readonly Sample[]): number => {
  const peak = samples.reduce((most, { down, up }) => Math.max(most, down, up), 0);
  const floor = 10_000;
  if (peak <= floor) return floor;
  const magnitude = 10 ** Math.floor(Math.log10(peak));
  const step = [1, 2, 5, 10].find((s) => s * magnitude >= peak) ?? 10;
  return step * magnitude;
};

/** A curve through the values, the newest at the right edge, as the `d` of an SVG path. */
export const curve = (values: readonly number[], top: number, width: number, height: number): string => {
  if (values.length === 0) return "";
  const step = width / (keep - 1);
  const start = width - step * (values.length - 1);
  const points = values.map((value, i) => ({
    x: start + i * step,
    y: height - (Math.min(value, top) / top) * height,
  }));
  const first = points[0];
  if (first === undefined) return "";
  let d = `M${first.x.toFixed(1)} ${first.y.toFixed(1)}`;
  for (let i = 1; i < points.length; i += 1) {
    const from = points[i - 1];
    const to = points[i];
    if (from === undefined || to === undefined) continue;
    // Level tangents at the samples: the curve never overshoots below zero or above a sample.
    const middle = ((from.x + to.x) / 2).toFixed(1);
    d += `C${middle} ${from.y.toFixed(1)} ${middle} ${to.y.toFixed(1)} ${to.x.toFixed(1)} ${to.y.toFixed(1)}`;
  }
  return d;
};

/** The area under such a curve. */
export const area = (values: readonly number[], top: number, width: number, height: number): string => {
  if (values.length < 2) return "";
  const start = (width - (width / (keep - 1)) * (values.length - 1)).toFixed(1);
  return `${curve(values, top, width, height)}L${width} ${height}L${start} ${height}Z`;
};
