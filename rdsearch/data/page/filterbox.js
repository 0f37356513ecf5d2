/** The filters' part of the form: a line a filter, with values that the index has. */

import { askJson, indexPath } from "./api.js";
import { byId, el, setOptions } from "./dom.js";
import { OPERATORS, kindOf, where } from "./filters.js";
import { grouped, plainText } from "./numbers.js";

// No proteins are told apart by these.
const HIDDEN = new Set(["row"]);
let lines = 0;

/** Filters of one index. */
export class FilterBox {
  /** @param {function(Error|null): void} onFault Called with a filter that cannot be sent. */
  constructor(onFault) {
    this.rows = byId("filter-rows");
    this.onFault = onFault;
    this.columns = {};
    this.summaries = new Map();
    byId("add-filter").addEventListener("click", () => this.add().querySelector("select").focus());
    byId("where").addEventListener("input", () => {
      // Now it is what was typed, whatever the lines say.
      this.onFault(null);
      this.counted();
    });
  }

  /** Take the columns of an index; filters of columns that it lacks go. */
  setIndex(facts) {
    const before = this.value();
    const edited = byId("where").value;
    const written = this.sql();
    this.name = facts.name;
    this.columns = Object.fromEntries(
      Object.entries(facts.columns).filter(([name]) => !HIDDEN.has(name)),
    );
    this.summaries.clear();
    this.set(before);
    // What somebody wrote is theirs to change.
    if (edited !== written) byId("where").value = edited;
    this.counted();
  }

  /** The filters, as values. */
  value() {
    return [...this.rows.children].map((line) => line.read());
  }

  /** Show these filters, and the condition that they make. */
  set(filters) {
    this.rows.replaceChildren();
    for (const filter of filters) if (filter.column in this.columns) this.add(filter);
    this.write();
  }

  sql() {
    try {
      return where(this.value());
    } catch {
      return null;
    }
  }

  write() {
    try {
      byId("where").value = where(this.value());
      this.onFault(null);
    } catch (error) {
      this.onFault(error);
    }
    this.counted();
  }

  counted() {
    const given = byId("where").value.trim();
    byId("filters-count").textContent = given ? "on" : "";
  }

  /** Add a line. */
  add(filter = {}) {
    lines += 1;
    const number = lines;
    const names = Object.keys(this.columns);
    const column = el("select", { "aria-label": "Column" });
    setOptions(
      column,
      names,
      filter.column ?? (names.includes("organism") ? "organism" : names[0]),
    );
    const operator = el("select", { "aria-label": "Test" });
    const values = el("span", { class: "values" });
    const remove = el(
      "button",
      { type: "button", class: "plain", "aria-label": "Remove this filter" },
      "Remove",
    );
    const line = el(
      "div",
      { class: "filter", role: "group", "aria-label": `Filter ${number}` },
      column,
      operator,
      values,
      remove,
    );
    const inputs = {};
    const type = () => this.columns[column.value];
    const field = (name, label, attributes = {}) => {
      inputs[name] = el("input", {
        type: "text",
        "aria-label": label,
        autocomplete: "off",
        ...attributes,
      });
      inputs[name].value = filter[name] ?? "";
      inputs[name].addEventListener("input", () => this.write());
      return inputs[name];
    };
    const showValues = async () => {
      for (const name of Object.keys(inputs)) delete inputs[name];
      values.replaceChildren();
      const kind = kindOf(type());
      const asked = column.value;
      if (operator.value === "range") {
        const attributes = kind === "date" ? { type: "date" } : { inputmode: "decimal" };
        values.append(
          field("low", "From", attributes),
          el("span", {}, "to"),
          field("high", "To", attributes),
        );
      } else if (["contains", "is", "not", "starts", "has"].includes(operator.value)) {
        const list = el("datalist", { id: `values-${number}` });
        values.append(field("value", "Value", { list: list.id }), list);
      }
      if (!Object.keys(inputs).length) return;
      const summary = await this.summary(asked);
      if (summary && column.value === asked) suggest(inputs, values, summary, kind);
    };
    const showOperators = () => {
      setOptions(operator, OPERATORS[kindOf(type())], filter.operator);
      showValues();
    };
    line.read = () => ({
      column: column.value,
      type: type(),
      operator: operator.value,
      ...Object.fromEntries(Object.entries(inputs).map(([name, input]) => [name, input.value])),
    });
    const changed = (show) => () => {
      filter = { operator: operator.value, ...(show === showValues ? filter : {}) };
      show();
      this.write();
    };
    column.addEventListener("change", changed(showOperators));
    operator.addEventListener("change", changed(showValues));
    remove.addEventListener("click", () => {
      const next = line.nextElementSibling ?? line.previousElementSibling;
      line.remove();
      this.write();
      (next?.querySelector("select") ?? byId("add-filter")).focus();
    });
    showOperators();
    this.rows.append(line);
    return line;
  }

  /** Values of a column, asked for once; null where the server does not tell. */
  summary(column) {
    if (!this.summaries.has(column)) {
      const path = `${indexPath(this.name)}/columns/${encodeURIComponent(column)}`;
      // Suggestions are a help: without them the filter works as well.
      this.summaries.set(
        column,
        askJson(path).catch(() => null),
      );
    }
    return this.summaries.get(column);
  }
}

function suggest(inputs, values, summary, kind) {
  const list = values.querySelector("datalist");
  if (list) {
    list.replaceChildren(
      ...(summary.values ?? []).map(([value, count]) =>
        el("option", { value: plainText(value), label: `${plainText(value)} (${grouped(count)})` }),
      ),
    );
  }
  if (inputs.low && summary.min !== null && summary.min !== undefined) {
    const text = (value) => (kind === "date" ? String(value).slice(0, 10) : plainText(value));
    inputs.low.placeholder = text(summary.min);
    inputs.high.placeholder = text(summary.max);
    if (kind === "date") [inputs.low.min, inputs.low.max] = [text(summary.min), text(summary.max)];
  }
}
