/** Where hits lie on the query: a bar a hit, the best on top. */

import { el, svg } from "./dom.js";
import { counted, grouped } from "./numbers.js";
import { shadeOf } from "./map.js";

const MOST = 30;
const WIDTH = 640;
const STEP = 7;
const TOP = 22;

/**
 * A figure of the aligned parts of the query.
 * @param {Object} result Of one query, with aligned hits.
 * @param {function(number): void} onPick Called with the rank of a hit.
 * @returns {HTMLElement|null} null where no hit is aligned.
 */
export function spansOf(result, onPick) {
  const hits = result.hits.filter((hit) => hit.cigar).slice(0, MOST);
  if (!hits.length) return null;
  const { length } = result.query;
  const scores = hits.map((hit) => hit.score);
  const [lowest, highest] = [Math.min(...scores), Math.max(...scores)];
  const x = (residues) => (WIDTH * residues) / length;
  const bars = hits.map((hit, at) => {
    const name = `${hit.rank}. ${hit.accession}, residues ${hit.query_start}–${hit.query_end}, score ${hit.score}`;
    const bar = svg(
      "rect",
      {
        x: x(hit.query_start - 1).toFixed(1),
        y: TOP + STEP * at,
        height: STEP - 2,
        rx: 1,
        width: Math.max(x(hit.query_end - hit.query_start + 1), 2).toFixed(1),
        class: `hit m${shadeOf(hit.score, lowest, highest)}`,
      },
      svg("title", {}, name),
    );
    bar.addEventListener("click", () => onPick(hit.rank));
    return bar;
  });
  const ticks = ticksOf(length).map((at) => {
    const anchor = at === 1 ? "start" : at === length ? "end" : "middle";
    return svg(
      "text",
      { x: x(at === 1 ? 0 : at).toFixed(1), y: 11, "text-anchor": anchor, class: "tick" },
      grouped(at),
    );
  });
  const label = `The parts of the query that ${counted(hits.length, "hit")} are aligned with; the table has the same under Query range`;
  const picture = svg(
    "svg",
    {
      viewBox: `0 0 ${WIDTH} ${TOP + STEP * hits.length}`,
      class: "spans",
      role: "img",
      "aria-label": label,
    },
    ticks,
    svg("rect", { x: 0, y: 15, width: WIDTH, height: 3, class: "query-line" }),
    bars,
  );
  const shown = hits.length < result.hits.length ? `, the ${hits.length} best` : "";
  return el(
    "figure",
    { class: "spans" },
    el("figcaption", { class: "small quiet" }, `Aligned parts of the query${shown}`),
    picture,
  );
}

/** Residues that the axis names: first, last, and round numbers that are not too near to them. */
export function ticksOf(length) {
  const rough = length / 5;
  const power = 10 ** Math.floor(Math.log10(Math.max(rough, 1)));
  const step = Math.max([1, 2, 5, 10].find((times) => times * power >= rough) * power, 1);
  const found = [1];
  for (let at = step; at < length - step / 2; at += step) if (at > 1) found.push(at);
  if (length > 1) found.push(length);
  return found;
}
