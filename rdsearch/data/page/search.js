/** A search: at once, or as a job where it is too large for that. */

import { ask } from "./api.js";
import { count } from "./fasta.js";
import { runJob } from "./jobs.js";

/** Why a search must be a job; "" where it need not. */
export function tooLarge(body, limits) {
  const { sequences, residues } = count(body.fasta);
  if (sequences > limits.sequences) return "sequences";
  if (residues > limits.residues) return "residues";
  // JSON has an escape for each line's end, and other fields besides.
  if (body.fasta.length * 1.1 + 20_000 > limits.body_bytes) return "bytes";
  const hits = body.k ?? (body.evalue || body.fdr ? 500 : 10);
  return body.align && sequences * hits > limits.aligned ? "alignments" : "";
}

/**
 * Search.
 * @param {Object} body
 * @param {Object} limits
 * @param {AbortSignal} signal
 * @param {function(Object|null): void} onProgress With job objects; null for a search at once.
 * @returns {Promise<Response>}
 */
export async function search(body, limits, signal, onProgress) {
  if (tooLarge(body, limits)) return runJob(body, signal, onProgress);
  onProgress(null);
  return ask("v1/search", { method: "POST", body, signal });
}
