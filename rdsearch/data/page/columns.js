/** The columns of a table of hits. */

import { evalueCell, spanCell, tierCell } from "./cells.js";
import { el } from "./dom.js";
import { grouped, percent, plainText } from "./numbers.js";

const KEPT = "rdsearch.columns";

// What other columns show, or what is of no use in a table.
const SHOWN_ELSEWHERE = new Set([
  "query",
  "tiers",
  "accession",
  "protein_name",
  "organism",
  "cigar",
]);

/** Columns that are shown unless somebody chooses others. */
const USUAL = new Set([
  "rank",
  "protein",
  "evalue",
  "probability",
  "identity",
  "query_start",
  "length",
]);

/**
 * A column.
 * @typedef {Object} Column
 * @property {string} key
 * @property {string} label
 * @property {string} [help]
 * @property {string} [kind] Class of its cells: "n" is a number, "bar" has a bar.
 * @property {boolean} [falling] The first sort is from high to low.
 * @property {boolean} [head] Heads its row.
 * @property {function(Object): *} value What sorts.
 * @property {function(Object): (Node|string|Array)} cell What is shown.
 */

/**
 * All columns that the hits of a query can be shown with.
 * @param {Object} result Of one query.
 * @param {Object} answer The whole answer.
 * @param {function(Object): Node} opener Makes what opens a hit's details.
 * @returns {Column[]}
 */
export function columnsOf(result, answer, opener) {
  const { hits, query } = result;
  const has = (name) => hits.some((hit) => hit[name] !== undefined && hit[name] !== null);
  const tiers = tiersOf(hits, answer);
  const ranked = tiers.some((tier) => has(`rank_${tier}`));
  const best = Math.min(...hits.map((hit) => hit.evalue ?? Infinity));
  const all = [
    {
      key: "rank",
      label: "#",
      name: "Rank",
      kind: "n rank",
      value: (hit) => hit.rank,
      cell: (hit) => String(hit.rank),
    },
    {
      key: "protein",
      label: "Protein",
      kind: "protein",
      head: true,
      value: (hit) => hit.accession,
      cell: opener,
    },
  ];
  if (has("evalue")) {
    all.push({
      key: "evalue",
      label: "E-value",
      kind: "n bar",
      value: (hit) => hit.evalue,
      cell: (hit) => evalueCell(hit, best),
      help: "Unrelated proteins expected by chance with this score or a better one: small is significant",
    });
  }
  if (has("probability")) {
    all.push({
      key: "probability",
      label: "Probability",
      kind: "n",
      falling: true,
      value: (hit) => hit.probability,
      cell: (hit) => percent(hit.probability, 0),
      help: "Of homology, as calibrated on labelled proteins",
    });
  }
  tiers.forEach((tier, at) => {
    const last = at === tiers.length - 1;
    all.push({
      key: `score_${tier}`,
      label: tier,
      name: `Score at ${tier}`,
      kind: "n tier",
      falling: true,
      usual: true,
      value: (hit) => hit[`score_${tier}`],
      cell: (hit) => tierCell(hit, tier, ranked),
      help: `Score and rank with models up to ${tier}${last ? "; hits are ranked by this one" : ""}`,
    });
  });
  if (has("cigar")) {
    all.push(
      {
        key: "identity",
        label: "Identity",
        kind: "n",
        falling: true,
        value: (hit) => hit.identity,
        cell: (hit) => percent(hit.identity),
        help: "Share of the alignment's columns with equal residues",
      },
      {
        key: "query_start",
        label: "Query range",
        kind: "n bar",
        value: (hit) => hit.query_start,
        cell: (hit) => spanCell(hit, query.length),
        help: "Residues of the query that are aligned",
      },
    );
  }
  all.push({
    key: "length",
    label: "Residues",
    kind: "n",
    value: (hit) => hit.length,
    cell: (hit) => grouped(hit.length),
  });
  const taken = new Set([...all.map((one) => one.key), ...tiers.map((tier) => `rank_${tier}`)]);
  const others = [...new Set(hits.flatMap((hit) => Object.keys(hit)))];
  for (const key of others) {
    if (!taken.has(key) && !SHOWN_ELSEWHERE.has(key)) all.push(plain(key, hits));
  }
  return all;
}

/** Tiers that hits have scores at, coarse to fine. */
export function tiersOf(hits, answer) {
  const traced = (hits[0]?.tiers ?? []).map((one) => one.tier);
  return traced.length ? traced : answer.tiers;
}

function plain(key, hits) {
  const numeric = hits.every(
    (hit) => hit[key] === null || hit[key] === undefined || typeof hit[key] === "number",
  );
  return {
    key,
    label: key.replaceAll("_", " "),
    kind: numeric ? "n" : "text",
    value: (hit) => (Array.isArray(hit[key]) ? plainText(hit[key]) : hit[key]),
    cell: (hit) => plainText(hit[key]),
  };
}

/** The name that opens a hit, with the organism below it. */
export const proteinCell = (hit, button) => [
  button,
  el("span", { class: "name" }, hit.protein_name || hit.description || ""),
  hit.organism ? el("i", { class: "organism" }, hit.organism) : null,
];

/** Text of a hit that a filter of the table looks through, in small letters. */
export const textOf = (hit) =>
  Object.entries(hit)
    .filter(([name, value]) => typeof value === "string" && name !== "cigar" && name !== "query")
    .map(([, value]) => value)
    .concat(hit.accessions ?? [])
    .join("\n")
    .toLowerCase();

/** Whether a column is shown. */
export function isShown(column) {
  const kept = choices();
  return kept[column.key] ?? (column.usual || USUAL.has(column.key));
}

/** Remember that a column is to be shown, or not. */
export function choose(column, shown) {
  chosen = { ...choices(), [column.key]: shown };
  try {
    localStorage.setItem(KEPT, JSON.stringify(chosen));
  } catch {
    // It holds for this visit.
  }
}

let chosen = null;
function choices() {
  if (chosen) return chosen;
  try {
    chosen = JSON.parse(localStorage.getItem(KEPT) ?? "{}") ?? {};
  } catch {
    chosen = {};
  }
  return chosen;
}
