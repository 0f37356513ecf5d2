/** What is known of a hit, and how it is aligned. */

import { blockText, blocks } from "./alignment.js";
import { askJson, indexPath } from "./api.js";
import { tiersOf } from "./columns.js";
import { copied, el } from "./dom.js";
import { counted, evalueText, percent, plainText } from "./numbers.js";

// UniProt's own pattern of its accessions, and an isoform's number.
const UNIPROT = /^([OPQ][0-9][A-Z0-9]{3}[0-9]|[A-NR-Z][0-9]([A-Z][A-Z0-9]{2}[0-9]){1,2})(-\d+)?$/;
const IN_FACTS = new Set([
  "query",
  "rank",
  "score",
  "tiers",
  "accession",
  "protein_name",
  "organism",
]);
const ALIGNED = [
  "identity",
  "positives",
  "query_coverage",
  "target_coverage",
  "query_start",
  "query_end",
  "target_start",
  "target_end",
  "alignment_length",
  "mismatches",
  "gap_openings",
  "cigar",
  "alignment_score",
  "bits",
  "alignment_evalue",
];

/** Pages about a protein elsewhere: pairs of name and address; none where its accession is not UniProt's. */
export function linksOf(accession) {
  const found = accession.match(UNIPROT);
  if (!found) return [];
  return [
    ["UniProt", `https://www.uniprot.org/uniprotkb/${accession}/entry`],
    ["AlphaFold DB", `https://alphafold.ebi.ac.uk/entry/${found[1]}`],
  ];
}

const fact = (name, value, help) =>
  el("div", { title: help ?? null }, el("dt", {}, name), el("dd", {}, value));

function facts(hit, answer) {
  const list = [fact("score", String(hit.score), "Cosine of the embeddings, at most 1")];
  if (hit.evalue !== undefined && hit.evalue !== null)
    list.push(fact("e-value", evalueText(hit.evalue)));
  if (hit.probability !== undefined && hit.probability !== null)
    list.push(fact("probability", percent(hit.probability)));
  for (const tier of tiersOf([hit], answer)) {
    const rank = hit[`rank_${tier}`];
    list.push(
      fact(
        tier,
        `${hit[`score_${tier}`]}${rank ? `, rank ${rank}` : ""}`,
        `Score and rank with models up to ${tier}`,
      ),
    );
  }
  if (hit.cigar) {
    list.push(
      fact("identity", percent(hit.identity)),
      fact("positives", percent(hit.positives), "Columns with a positive substitution score"),
      fact("query", `${hit.query_start}–${hit.query_end} (${percent(hit.query_coverage, 0)})`),
      fact("target", `${hit.target_start}–${hit.target_end} (${percent(hit.target_coverage, 0)})`),
      fact("columns", String(hit.alignment_length)),
      fact("gap openings", String(hit.gap_openings)),
      fact("bits", `${hit.bits} (${hit.alignment_score})`),
      fact(
        "e-value of the alignment",
        evalueText(hit.alignment_evalue),
        "By Karlin–Altschul statistics; it judges the residues, not the embeddings",
      ),
    );
  }
  return el("dl", { class: "of-hit" }, list);
}

function others(hit) {
  const shown = Object.entries(hit).filter(
    ([name, value]) =>
      !IN_FACTS.has(name) &&
      !ALIGNED.includes(name) &&
      !/^(score|rank)_/.test(name) &&
      !["evalue", "probability"].includes(name) &&
      plainText(value) !== "" &&
      !(name === "accessions" && value.length === 1),
  );
  return el(
    "dl",
    { class: "of-hit columns" },
    shown.map(([name, value]) => fact(name.replaceAll("_", " "), plainText(value))),
  );
}

/**
 * The details of a hit.
 * @param {Object} hit
 * @param {{answer: Object, query: {id: string, sequence: string}, onNeighbours: function(Object): void}} context
 * @returns {HTMLElement}
 */
export function detailsOf(hit, { answer, query, onNeighbours }) {
  const said = el("span", { class: "quiet small", role: "status" });
  const target = askJson(
    `${indexPath(answer.index)}/proteins/${encodeURIComponent(hit.accession)}`,
  );
  // Whoever needs the sequence awaits it, and says why there is none.
  target.catch(() => {});
  const withTarget = (use) => async () => {
    try {
      use(await target);
    } catch (error) {
      said.textContent = `The sequence is not there: ${error.message}`;
    }
  };
  const neighbours = el("button", { type: "button", class: "plain" }, "Search from this hit");
  neighbours.addEventListener("click", withTarget(onNeighbours));
  const copy = el("button", { type: "button", class: "plain" }, "Copy its sequence");
  copy.addEventListener(
    "click",
    withTarget(async (protein) => {
      const text =
        `>${protein.accession} ${protein.description ?? ""}`.trim() + `\n${protein.sequence}\n`;
      said.textContent = (await copied(text))
        ? "Copied as FASTA"
        : "The browser does not let it be copied";
    }),
  );
  const links = linksOf(hit.accession).map(([name, href]) =>
    el(
      "a",
      { href, target: "_blank", rel: "noopener noreferrer" },
      name,
      el("span", { class: "offscreen" }, " (opens another site)"),
    ),
  );
  const parts = [
    el("div", { class: "hit-tools" }, links, neighbours, copy, said),
    facts(hit, answer),
  ];
  if (hit.cigar) parts.push(alignmentOf(hit, query, target));
  parts.push(others(hit));
  return el("div", {}, parts);
}

function alignmentOf(hit, query, target) {
  const label = `Alignment of ${query.id} with ${hit.accession}`;
  const box = el(
    "pre",
    { class: "alignment", role: "region", "aria-label": label, tabindex: "0", "aria-busy": "true" },
    "Fetching the sequence",
  );
  target
    .then((protein) => {
      const width = String(Math.max(hit.query_end, hit.target_end)).length;
      const columns = matchMedia("(max-width: 640px)").matches ? 30 : 60;
      const found = blocks(query.sequence, protein.sequence, hit, columns);
      box.replaceChildren(
        ...found.map((block) => el("span", { class: "block" }, `${blockText(block, width)}\n`)),
      );
    })
    .catch((error) => {
      box.textContent = `The alignment of ${counted(hit.alignment_length, "column")} cannot be shown: ${error.message}`;
    })
    .finally(() => box.removeAttribute("aria-busy"));
  return box;
}
