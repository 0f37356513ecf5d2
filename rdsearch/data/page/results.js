/** Results: the queries, and for one of them its map and its hits. */

import { detailsOf } from "./details.js";
import { el } from "./dom.js";
import { mapOf } from "./map.js";
import { counted, evalueText, grouped } from "./numbers.js";
import { spansOf } from "./spans.js";
import { HitTable } from "./table.js";

// Queries that are listed at once; others are found by their name.
const LISTED = 200;

/** The results of a search, inside an element. */
export class Results {
  /**
   * @param {HTMLElement} element
   * @param {Object} answer Of the API.
   * @param {{queries: Object[], facts: Object, tools: Node, onNeighbours: function(Object): void}} context
   *   `queries` are the records that were sent, in the order of the results.
   */
  constructor(element, answer, context) {
    this.answer = answer;
    this.context = context;
    this.section = el("div", { class: "of-query" });
    const several = answer.results.length > 1;
    const hits = answer.results.reduce((sum, one) => sum + one.hits.length, 0);
    const title = several
      ? `${counted(answer.results.length, "query", "queries")}, ${counted(hits, "hit")}`
      : "Results";
    this.heading = el("h2", { tabindex: "-1", id: "results-heading" }, title);
    const made = `${answer.index}, generation ${answer.generation} · ${answer.funnel}`;
    element.replaceChildren(
      el(
        "div",
        { class: "results-top" },
        el("div", {}, this.heading, el("p", { class: "quiet small" }, made)),
        context.tools,
      ),
      ...notesOf(answer.notes),
      ...(several ? [this.list()] : []),
      this.section,
    );
    this.show(0);
  }

  /** The list of queries. */
  list() {
    const { results } = this.answer;
    const evalues = results.some((one) => one.hits.some((hit) => (hit.evalue ?? null) !== null));
    const body = el("tbody");
    this.links = new Map();
    const draw = (text) => {
      const words = text.toLowerCase().split(/\s+/).filter(Boolean);
      const found = results
        .map((result, at) => ({ result, at }))
        .filter(({ result }) =>
          words.every((word) =>
            `${result.query.id} ${result.query.description}`.toLowerCase().includes(word),
          ),
        );
      this.links.clear();
      body.replaceChildren(
        ...found.slice(0, LISTED).map(({ result, at }) => this.line(result, at, evalues)),
      );
      more.textContent =
        found.length > LISTED
          ? `The first ${LISTED} of ${grouped(found.length)} queries are listed.`
          : "";
      this.mark();
    };
    const more = el("p", { class: "quiet small", role: "status" });
    const input = el("input", {
      type: "search",
      "aria-label": "Find a query",
      placeholder: "Find a query",
      autocomplete: "off",
    });
    input.addEventListener("input", () => draw(input.value));
    const head = ["Query", "Residues", "Hits", "Best hit", ...(evalues ? ["E-value"] : [])];
    const table = el(
      "table",
      { class: "queries" },
      el(
        "thead",
        {},
        el(
          "tr",
          {},
          head.map((name, at) =>
            el("th", { scope: "col", class: [1, 2, 4].includes(at) ? "n" : null }, name),
          ),
        ),
      ),
      body,
    );
    draw("");
    return el(
      "nav",
      { class: "queries", "aria-label": "Queries" },
      results.length > 12 ? input : null,
      el("div", { class: "wide" }, table),
      more,
    );
  }

  line(result, at, evalues) {
    const { query, hits } = result;
    const button = el("button", { type: "button", class: "open" }, query.id);
    button.addEventListener("click", () => {
      this.show(at);
      this.section.querySelector("h3").focus();
    });
    this.links.set(at, button);
    const best = hits[0];
    const name = best ? [el("b", {}, best.accession), ` ${best.protein_name ?? ""}`] : ["no hits"];
    return el(
      "tr",
      {},
      el("th", { scope: "row" }, button),
      el("td", { class: "n" }, grouped(query.length)),
      el("td", { class: "n" }, grouped(hits.length)),
      el("td", { class: best ? "best" : "best quiet" }, name),
      evalues ? el("td", { class: "n" }, best ? evalueText(best.evalue) : "") : null,
    );
  }

  mark() {
    for (const [at, button] of this.links ?? []) {
      if (at === this.at) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
      button.closest("tr").classList.toggle("current", at === this.at);
    }
  }

  /** Show one query. */
  show(at) {
    this.at = at;
    this.mark();
    const result = this.answer.results[at];
    if (!result) {
      this.section.replaceChildren(el("p", { class: "nothing" }, "There are no queries."));
      return;
    }
    const { query, hits } = result;
    const heading = el("h3", { tabindex: "-1" }, query.id || "query");
    const said = [query.description, counted(query.length, "residue"), counted(hits.length, "hit")]
      .filter(Boolean)
      .join(" · ");
    const about = el(
      "div",
      { class: "about" },
      heading,
      el("p", { class: "quiet" }, said),
      ...this.steps(at),
      ...this.remarks(result),
    );
    if (!hits.length) {
      this.section.replaceChildren(
        about,
        el(
          "p",
          { class: "nothing" },
          "No hits. A looser cut, other filters or wider models may find some.",
        ),
      );
      return;
    }
    const record = { ...this.context.queries[at], id: query.id };
    const details = (hit) =>
      detailsOf(hit, {
        answer: this.answer,
        query: record,
        onNeighbours: this.context.onNeighbours,
      });
    this.table = new HitTable(result, this.answer, details);
    const reveal = (rank) => this.table.reveal(rank);
    const top = el("div", { class: "query-top" }, about);
    about.append(spansOf(result, reveal) ?? "");
    if (result.map) top.append(mapOf(result, reveal));
    this.section.replaceChildren(top, this.table.element);
  }

  /** To the query before and after. */
  steps(at) {
    const { results } = this.answer;
    if (results.length < 2) return [];
    const step = (name, to) => {
      const button = el("button", { type: "button", class: "plain", disabled: !results[to] }, name);
      button.addEventListener("click", () => {
        this.show(to);
        this.section.querySelector("h3").focus();
      });
      return button;
    };
    return [
      el(
        "p",
        { class: "steps" },
        step("Previous", at - 1),
        ` ${grouped(at + 1)} of ${grouped(results.length)} `,
        step("Next", at + 1),
      ),
    ];
  }

  remarks(result) {
    const { hits } = result;
    const remarks = [];
    if (hits.length) {
      const best = hits[0];
      const facts = [
        el("div", {}, el("dt", {}, "best hit"), el("dd", {}, best.accession)),
        el("div", {}, el("dt", {}, "score"), el("dd", {}, best.score.toFixed(3))),
      ];
      if ((best.evalue ?? null) !== null)
        facts.push(el("div", {}, el("dt", {}, "e-value"), el("dd", {}, evalueText(best.evalue))));
      if (best.cigar)
        facts.push(
          el(
            "div",
            {},
            el("dt", {}, "identity"),
            el("dd", {}, `${Math.round(100 * best.identity)} %`),
          ),
        );
      remarks.push(el("dl", { class: "figures" }, facts));
    }
    if (this.context.facts.evalues)
      remarks.push(
        el("p", { class: "small quiet" }, `No e-values: ${this.context.facts.evalues}.`),
      );
    if (result.full) {
      remarks.push(
        el(
          "p",
          { class: "small notes" },
          `These are as many hits as were asked for: more may pass the cut. Ask for more than ${grouped(hits.length)} to see.`,
        ),
      );
    }
    return remarks;
  }
}

const notesOf = (notes) =>
  notes?.length
    ? [
        el(
          "div",
          { class: "notes", role: "note" },
          notes.map((note) => el("p", {}, note)),
        ),
      ]
    : [];
