// Numbers as people read them.

const units = ["B", "kB", "MB", "GB", "TB"] as const;

const scaled = (bytes: number): { value: number; unit: string } => {
  let value = Math.max(0, bytes);
  let step = 0;
  while (value >= 999.5 && step < units.length - 1) {
    value /= 1000;
    step += 1;
  }
  return { value, unit: units[step] ?? "B" };
};

/** An amount of data, three digits at most: "0 B", "1.5 kB", "20.0 MB". */
export const size = (bytes: number, language: string): string => {
  const { value, unit } = scaled(bytes);
  const digits = unit === "B" || value >= 100 ? 0 : 1;
  return `${value.toLocaleString(language, { minimumFractionDigits: digits, maximumFractionDigits: digits })} ${unit}`;
};

/** A speed, in bytes a second. */
export const rate = (bytesPerSecond: number, language: string): string => `${size(bytesPerSecond, language)}/s`;

/** A stretch of time as h:mm:ss or m:ss; days only when there are some. */
export const duration = (milliseconds: number): string => {
  const seconds = Math.max(0, Math.floor(milliseconds / 1000));
  const two = (n: number): string => String(n).padStart(2, "0");
  const days = Math.floor(seconds / 86400);
  const hours = Math.floor(seconds / 3600) % 24;
  const minutes = Math.floor(seconds / 60) % 60;
  const tail = `${two(minutes)}:${two(seconds % 60)}`;
  if (days > 0) return `${days}d ${hours}:${tail}`;
  return hours > 0 ? `${hours}:${tail}` : `${minutes}:${two(seconds % 60)}`;
};
