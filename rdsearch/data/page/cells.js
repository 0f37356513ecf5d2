/** What a table's cell shows: numbers with bars. */

import { el } from "./dom.js";
import { evalueShare, evalueText, grouped, percent } from "./numbers.js";

/** A bar in a track; widths are set from here since the page's policy allows no styles in HTML. */
export function track(kind, width, left = 0) {
  const bar = el("div");
  bar.style.width = `${(100 * width).toFixed(1)}%`;
  if (left) bar.style.marginLeft = `${(100 * left).toFixed(1)}%`;
  return el("div", { class: `track ${kind}`, "aria-hidden": "true" }, bar);
}

/** An e-value and its bar. */
export const evalueCell = (hit, best) => [
  // One and more is what chance gives.
  el("span", { class: hit.evalue >= 1 ? "quiet" : null }, evalueText(hit.evalue)),
  hit.evalue === null || hit.evalue === undefined
    ? null
    : track("e", evalueShare(hit.evalue, best)),
];

const RANKS = [1, 10, 100, 1000];

/**
 * Score, rank and bar of a hit at a tier; the bar is dark where the rank is good.
 * @param {Object} hit
 * @param {string} tier
 * @param {boolean} ranked Whether the search was traced: then no rank is a bad one.
 */
export function tierCell(hit, tier, ranked) {
  const score = hit[`score_${tier}`];
  if (score === undefined || score === null) return ["–"];
  const number = el("span", {}, score.toFixed(2));
  if (!ranked) return [number, track("t", Math.max(score, 0))];
  const rank = hit[`rank_${tier}`] ?? Infinity;
  const known = rank < Infinity;
  number.title = `score ${score} at ${tier}, ${known ? `rank ${grouped(rank)}` : "beyond the ranks that are traced"}`;
  const shade = RANKS.findIndex((most) => rank <= most);
  return [
    number,
    " ",
    el("small", { class: "place" }, known ? `#${grouped(rank)}` : "–"),
    track(`t r${shade < 0 ? 4 : shade}`, Math.max(score, 0)),
  ];
}

/** Which part of the query is aligned. */
export function spanCell(hit, length) {
  if (!hit.cigar) return ["–"];
  const left = (hit.query_start - 1) / length;
  return [
    el(
      "span",
      { title: `${percent(hit.query_coverage, 0)} of the query` },
      `${hit.query_start}–${hit.query_end}`,
    ),
    track("s", (hit.query_end - hit.query_start + 1) / length, left),
  ];
}
