/** Numbers as people read them. */

const GROUPED = new Intl.NumberFormat("en");

/** 1965 → "1,965". */
export const grouped = (value) => GROUPED.format(value);

/** "1 hit", "2 hits". */
export const counted = (n, one, many = `${one}s`) => `${grouped(n)} ${n === 1 ? one : many}`;

/** An e-value: "1.9e-5", "0.0022", "12"; 0 is "0". */
export function evalueText(value) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  if (value < 1e-3) return value.toExponential(1).replace(".0e", "e");
  return value < 10 ? String(Number(value.toPrecision(2))) : grouped(Math.round(value));
}

/**
 * How much of its track the bar of an e-value fills, on a logarithmic scale.
 * @param {number|null} value
 * @param {number} best The smallest e-value beside it; its bar is full, at most at 1e-50.
 * @returns {number} In 0..1; e-values of 10 and more have no bar.
 */
export function evalueShare(value, best) {
  if (value === null || value === undefined) return 0;
  const height = (one) => 1 - Math.log10(Math.max(one, 1e-50));
  const full = Math.max(height(Math.max(best, 1e-50)), 4);
  return Math.min(Math.max(height(value) / full, 0), 1);
}

/** 0.9394 → "93.9 %". */
export const percent = (share, digits = 1) =>
  share === null || share === undefined ? "–" : `${(100 * share).toFixed(digits)} %`;

/** Bytes: "1.3 MB". */
export function bytesText(bytes) {
  if (bytes < 1000) return `${bytes} B`;
  const power = Math.min(Math.floor(Math.log10(bytes) / 3), 4);
  const value = bytes / 1000 ** power;
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} ${"kMGT"[power - 1]}B`;
}

/** Parameters of a model: "4.8 million". */
export function parametersText(count) {
  const [size, word] =
    count >= 1e9 ? [1e9, "billion"] : count >= 1e6 ? [1e6, "million"] : [1e3, "thousand"];
  return `${Number((count / size).toPrecision(2))} ${word}`;
}

/** Any value of a column, as text. */
export function plainText(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (Array.isArray(value)) return value.map(plainText).join(", ");
  if (typeof value === "object") return JSON.stringify(value);
  return String(value);
}
