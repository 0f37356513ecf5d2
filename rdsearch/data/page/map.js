/** A map of two dimensions: the query, its hits by score, and other proteins of the index. */

import { el, svg } from "./dom.js";
import { counted, percent } from "./numbers.js";

const WIDTH = 440;
const HEIGHT = 300;
const MARGIN = 14;
const SHADES = 5;

/** Places of the map as places of the picture: one scale for both directions. */
export function scaled(points, width = WIDTH, height = HEIGHT, margin = MARGIN) {
  const [xs, ys] = [points.map(([x]) => x), points.map(([, y]) => y)];
  const [left, right] = [Math.min(...xs), Math.max(...xs)];
  const [low, high] = [Math.min(...ys), Math.max(...ys)];
  const scale = Math.min(
    (width - 2 * margin) / (right - left || 1),
    (height - 2 * margin) / (high - low || 1),
  );
  return ([x, y]) => [
    width / 2 + scale * (x - (left + right) / 2),
    height / 2 - scale * (y - (low + high) / 2),
  ];
}

/** Shade of a score between the lowest and the highest: 0..4. */
export function shadeOf(score, lowest, highest) {
  if (!(highest > lowest)) return SHADES - 1;
  return Math.min(Math.floor((SHADES * (score - lowest)) / (highest - lowest)), SHADES - 1);
}

/**
 * A figure of the map of a query.
 * @param {Object} result Of one query, with its map.
 * @param {function(number): void} onPick Called with the rank of a hit.
 * @returns {HTMLElement}
 */
export function mapOf(result, onPick) {
  const { map, query } = result;
  const hits = result.hits.slice(0, map.hits.length);
  const place = scaled([map.query, ...map.hits, ...map.others]);
  const scores = hits.map((hit) => hit.score);
  const [lowest, highest] = [Math.min(...scores), Math.max(...scores)];
  const said = el(
    "p",
    { class: "said small", "aria-hidden": "true" },
    "Point at a hit to see which it is.",
  );
  const before = said.textContent;
  const dot = (point, radius, attributes, ...children) => {
    const [cx, cy] = place(point).map((value) => value.toFixed(1));
    return svg("circle", { cx, cy, r: radius, ...attributes }, ...children);
  };
  const marks = hits.map((hit, at) => {
    const name = `${hit.rank}. ${hit.accession}${hit.protein_name ? `, ${hit.protein_name}` : ""}, score ${hit.score}`;
    const mark = dot(map.hits[at], 5.5, {
      class: `hit m${shadeOf(hit.score, lowest, highest)}`,
      role: "button",
      tabindex: at ? "-1" : "0",
      "aria-label": name,
      "data-accession": hit.accession,
    });
    const tell = (text) => () => {
      said.textContent = text;
    };
    mark.addEventListener("pointerenter", tell(name));
    mark.addEventListener("focus", tell(name));
    mark.addEventListener("pointerleave", tell(before));
    mark.addEventListener("blur", tell(before));
    mark.addEventListener("click", () => onPick(hit.rank));
    return mark;
  });
  const [x, y] = place(map.query);
  const size = 8;
  const diamond = `M${x} ${y - size}L${x + size} ${y}L${x} ${y + size}L${x - size} ${y}Z`;
  const label = `Map of ${query.id} and ${counted(hits.length, "hit")}; the arrow keys go from hit to hit, and the table has the same hits`;
  const picture = svg(
    "svg",
    { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "map", role: "group", "aria-label": label },
    map.others.map((point) => dot(point, 2.2, { class: "other" })),
    // The best are on top.
    [...marks].reverse(),
    svg("path", { d: diamond, class: "query-mark" }, svg("title", {}, `the query, ${query.id}`)),
  );
  picture.addEventListener("keydown", (event) => walk(event, marks, (at) => onPick(hits[at].rank)));
  return el(
    "figure",
    { class: "map" },
    picture,
    el(
      "figcaption",
      { class: "small" },
      said,
      el(
        "p",
        { class: "quiet" },
        sample("query-mark", "query"),
        sample("hit m4", "hit, stronger in colour where the score is higher"),
        sample("other", "other proteins"),
      ),
      el(
        "p",
        { class: "quiet" },
        `This plane shows ${percent(map.explained, 0)} of the variance: near on it is not always near.`,
      ),
    ),
  );
}

function sample(kind, text) {
  const shape =
    kind === "query-mark"
      ? svg("path", { d: "M6 1L11 6L6 11L1 6Z", class: kind })
      : svg("circle", { cx: 6, cy: 6, r: kind === "other" ? 2.5 : 5, class: kind });
  return el(
    "span",
    { class: "key-of" },
    svg("svg", { viewBox: "0 0 12 12", "aria-hidden": "true" }, shape),
    ` ${text}`,
  );
}

/** Keys on the map: one stop for Tab, arrows from hit to hit by rank. */
function walk(event, marks, pick) {
  const at = marks.indexOf(event.target);
  if (at < 0) return;
  const steps = {
    ArrowRight: at + 1,
    ArrowDown: at + 1,
    ArrowLeft: at - 1,
    ArrowUp: at - 1,
    Home: 0,
    End: marks.length - 1,
  };
  if (event.key === "Enter" || event.key === " ") pick(at);
  else if (event.key in steps) {
    const next = marks[Math.min(Math.max(steps[event.key], 0), marks.length - 1)];
    marks[at].setAttribute("tabindex", "-1");
    next.setAttribute("tabindex", "0");
    next.focus();
  } else return;
  event.preventDefault();
}
