/** An alignment in blocks of 60 columns, as the report prints it. */

// Other residues with a positive score in BLOSUM62; U counts as C, O as K.
const POSITIVE = {
  A: "S",
  C: "U",
  D: "ENBZ",
  E: "DKQBZ",
  F: "WY",
  H: "NY",
  I: "LMV",
  K: "EQRZ",
  L: "IMV",
  M: "ILV",
  N: "DHSB",
  Q: "EKRZ",
  R: "KQ",
  S: "ANT",
  T: "S",
  V: "ILM",
  W: "FY",
  Y: "FHW",
  B: "DEN",
  U: "C",
  Z: "DEKQ",
};

/**
 * Query and target with gaps, and what stands between them.
 * @param {string} query Whole sequence.
 * @param {string} target Whole sequence.
 * @param {{cigar: string, query_start: number, target_start: number}} hit Positions count from 1.
 * @returns {{query: string, middle: string, target: string}} Of equal length.
 */
export function paired(query, target, hit) {
  let [i, j] = [hit.query_start - 1, hit.target_start - 1];
  let [upper, lower] = ["", ""];
  for (const [, length, kind] of hit.cigar.matchAll(/(\d+)([MID])/g)) {
    const n = Number(length);
    upper += kind === "D" ? "-".repeat(n) : query.slice(i, i + n);
    lower += kind === "I" ? "-".repeat(n) : target.slice(j, j + n);
    if (kind !== "D") i += n;
    if (kind !== "I") j += n;
  }
  const middle = [...upper].map((one, at) => between(one, lower[at])).join("");
  return { query: upper, middle, target: lower };
}

function between(one, other) {
  if (one === other) return one;
  return (POSITIVE[one] || "").includes(other) ? "+" : " ";
}

/**
 * Blocks of an alignment.
 * @param {string} query
 * @param {string} target
 * @param {{cigar: string, query_start: number, target_start: number}} hit
 * @param {number} [width] Columns of a block.
 * @returns {{query: string, middle: string, target: string, queryStart: number, queryEnd: number,
 *   targetStart: number, targetEnd: number}[]} A row of gaps alone names the residue before it.
 */
export function blocks(query, target, hit, width = 60) {
  const whole = paired(query, target, hit);
  const found = [];
  let [one, other] = [hit.query_start, hit.target_start];
  for (let at = 0; at < whole.query.length; at += width) {
    const part = {
      query: whole.query.slice(at, at + width),
      middle: whole.middle.slice(at, at + width),
      target: whole.target.slice(at, at + width),
    };
    const queryEnd = one + residues(part.query) - 1;
    const targetEnd = other + residues(part.target) - 1;
    found.push({
      ...part,
      queryStart: Math.min(one, queryEnd),
      queryEnd,
      targetStart: Math.min(other, targetEnd),
      targetEnd,
    });
    [one, other] = [queryEnd + 1, targetEnd + 1];
  }
  return found;
}

const residues = (row) => row.replaceAll("-", "").length;

/** A block as three lines of text. */
export function blockText(block, width) {
  const line = (name, start, row, end) =>
    `${name}  ${String(start).padStart(width)}  ${row}  ${end}`;
  return [
    line("Query ", block.queryStart, block.query, block.queryEnd),
    " ".repeat(width + 10) + block.middle,
    line("Target", block.targetStart, block.target, block.targetEnd),
  ].join("\n");
}
