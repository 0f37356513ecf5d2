/** The table of a query's hits: sorts by any column, filters by text, opens a hit's details. */

import { choose, columnsOf, isShown, proteinCell, textOf } from "./columns.js";
import { el } from "./dom.js";
import { counted, grouped } from "./numbers.js";

// Rows that are drawn before somebody asks for all: browsers lay out a table as a whole.
const FIRST = 100;

// Numbers in words are in the order of numbers.
const ORDER = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

function compare(a, b, falling) {
  const [noA, noB] = [
    a === null || a === undefined || a === "",
    b === null || b === undefined || b === "",
  ];
  // What is missing comes last both ways.
  if (noA || noB) return Number(noA) - Number(noB);
  const order =
    typeof a === "number" && typeof b === "number" ? a - b : ORDER.compare(String(a), String(b));
  return falling ? -order : order;
}

/** A table of hits. */
export class HitTable {
  /**
   * @param {Object} result Of one query.
   * @param {Object} answer The whole answer.
   * @param {function(Object): Node} details Makes the details of a hit.
   */
  constructor(result, answer, details) {
    this.result = result;
    this.details = details;
    this.sorted = { key: "rank", falling: false };
    this.most = FIRST;
    this.lines = result.hits.map((hit) => ({
      hit,
      text: textOf(hit),
      row: null,
      opened: null,
      button: null,
    }));
    this.byRank = new Map(this.lines.map((line) => [line.hit.rank, line]));
    this.columns = columnsOf(result, answer, (hit) => proteinCell(hit, this.opener(hit)));
    this.body = el("tbody");
    this.head = el("thead");
    const label = `Hits of ${result.query.id}`;
    const table = el("table", { class: "hits", "aria-label": label }, this.head, this.body);
    this.box = el(
      "div",
      { class: "wide", role: "region", "aria-label": label, tabindex: "0" },
      table,
    );
    this.count = el("span", { class: "quiet small", role: "status" });
    this.input = el("input", {
      type: "search",
      "aria-label": "Find in these hits",
      placeholder: "Find in these hits",
      autocomplete: "off",
    });
    this.input.addEventListener("input", () => this.place());
    this.more = el("button", { type: "button", class: "plain more" });
    this.more.addEventListener("click", () => {
      const { rank } = this.matching()[this.most].hit;
      this.all();
      this.byRank.get(rank).button.focus();
    });
    const tools = el("div", { class: "table-tools" }, this.input, this.count, this.chooser());
    this.element = el("div", {}, tools, this.box, this.more);
    this.draw();
  }

  opener(hit) {
    const line = this.byRank.get(hit.rank);
    line.button = el(
      "button",
      { type: "button", class: "open", "aria-expanded": "false" },
      hit.accession,
    );
    line.button.addEventListener("click", (event) => {
      event.stopPropagation();
      this.toggle(line);
    });
    return line.button;
  }

  /** Which columns there are to be, besides. */
  chooser() {
    const boxes = this.columns
      .filter((column) => !["rank", "protein"].includes(column.key))
      .map((column) => {
        const box = el("input", { type: "checkbox", checked: isShown(column) });
        box.addEventListener("change", () => {
          choose(column, box.checked);
          this.draw();
        });
        return el("label", {}, box, ` ${column.name ?? column.label}`);
      });
    const menu = el(
      "details",
      { class: "menu" },
      el("summary", {}, "Columns"),
      el("fieldset", {}, el("legend", { class: "offscreen" }, "Columns"), boxes),
    );
    menu.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      menu.open = false;
      menu.querySelector("summary").focus();
    });
    menu.addEventListener("focusout", (event) => {
      if (event.relatedTarget && !menu.contains(event.relatedTarget)) menu.open = false;
    });
    // A click on what takes no focus is a click elsewhere too.
    document.addEventListener("pointerdown", (event) => {
      if (!menu.contains(event.target)) menu.open = false;
    });
    return menu;
  }

  /** Draw everything anew. */
  draw() {
    this.shown = this.columns.filter(
      (column) => ["rank", "protein"].includes(column.key) || isShown(column),
    );
    this.drawHead();
    for (const line of this.lines) {
      line.row = null;
      if (line.opened) line.opened.firstChild.colSpan = this.shown.length;
    }
    this.order();
  }

  /** The row of a line, made when it is first shown. */
  row(line) {
    if (line.row) return line.row;
    line.row = el(
      "tr",
      { "data-accession": line.hit.accession },
      this.shown.map((column) => this.cell(column, line.hit)),
    );
    line.row.addEventListener("click", () => {
      // Who marks text to copy it does not want the row to move.
      if (!getSelection()?.toString()) this.toggle(line);
    });
    if (line.opened) this.markOpen(line, true);
    return line.row;
  }

  cell(column, hit) {
    const tag = column.head ? "th" : "td";
    return el(tag, { class: column.kind, scope: column.head ? "row" : null }, column.cell(hit));
  }

  drawHead() {
    const tiers = this.shown.filter((column) => column.kind === "n tier").length;
    const first = this.shown.findIndex((column) => column.kind === "n tier");
    const heads = this.shown.map((column) => {
      const ours = column.key === this.sorted.key;
      const button = el(
        "button",
        { type: "button", title: column.help ?? null, "aria-label": column.name ?? null },
        column.label,
      );
      button.addEventListener("click", () => this.sort(column));
      const sort = ours ? (this.sorted.falling ? "descending" : "ascending") : "none";
      return el(
        "th",
        { scope: "col", class: column.kind, "aria-sort": sort, "data-key": column.key },
        button,
      );
    });
    const above =
      tiers > 1
        ? el(
            "tr",
            { class: "above" },
            first ? el("td", { colspan: first }) : null,
            el("th", { scope: "colgroup", colspan: tiers }, "Score by model size"),
            this.shown.length > first + tiers
              ? el("td", { colspan: this.shown.length - first - tiers })
              : null,
          )
        : null;
    this.head.replaceChildren(...[above, el("tr", {}, heads)].filter(Boolean));
  }

  /** Sort by a column; again, the other way round. */
  sort(column) {
    const again = this.sorted.key === column.key;
    this.sorted = {
      key: column.key,
      falling: again ? !this.sorted.falling : Boolean(column.falling),
    };
    for (const head of this.head.querySelectorAll("[aria-sort]")) {
      const ours = head.dataset.key === column.key;
      head.setAttribute(
        "aria-sort",
        ours ? (this.sorted.falling ? "descending" : "ascending") : "none",
      );
    }
    this.order();
  }

  order() {
    const column = this.columns.find((one) => one.key === this.sorted.key);
    const { falling } = this.sorted;
    this.lines.sort(
      (a, b) =>
        compare(column.value(a.hit), column.value(b.hit), falling) || a.hit.rank - b.hit.rank,
    );
    this.place();
  }

  /** Hits that have every word of the filter. */
  matching() {
    const words = this.input.value.toLowerCase().split(/\s+/).filter(Boolean);
    return this.lines.filter((line) => words.every((word) => line.text.includes(word)));
  }

  /** Put the rows that are to be seen into the table. */
  place() {
    const fits = this.matching();
    const shown = fits.slice(0, this.most);
    this.body.replaceChildren(
      ...shown.flatMap((line) => [this.row(line), line.opened].filter(Boolean)),
    );
    const all = this.lines.length;
    this.count.textContent =
      fits.length < all ? `${grouped(fits.length)} of ${counted(all, "hit")}` : counted(all, "hit");
    this.more.hidden = shown.length === fits.length;
    this.more.textContent = `Show ${grouped(fits.length - shown.length)} more`;
  }

  /** Show every row. */
  all() {
    this.most = Infinity;
    this.place();
  }

  /** Open or close a hit. */
  toggle(line, open = !line.opened) {
    if (open === Boolean(line.opened)) return;
    if (open) {
      const cell = el(
        "td",
        { colspan: this.shown.length },
        el("div", { class: "detail" }, this.details(line.hit)),
      );
      line.opened = el("tr", { class: "details" }, cell);
      line.row.after(line.opened);
    } else {
      line.opened.remove();
      line.opened = null;
    }
    this.markOpen(line, open);
  }

  markOpen(line, open) {
    line.row.classList.toggle("opened", open);
    line.button.setAttribute("aria-expanded", String(open));
  }

  /** Show a hit by rank: open, and in sight. */
  reveal(rank) {
    const line = this.byRank.get(rank);
    if (!this.matching().includes(line)) this.input.value = "";
    if (this.matching().indexOf(line) >= this.most) this.most = Infinity;
    this.place();
    this.toggle(line, true);
    line.row.scrollIntoView({ block: "center" });
    line.button.focus({ preventScroll: true });
  }
}
