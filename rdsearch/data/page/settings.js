/** What is asked for: the form's fields, and the body of a search that they make. */

import { byId, setOptions } from "./dom.js";
import { bytesText, counted, parametersText } from "./numbers.js";

// Bytes of tiers that each query reads for a trace, unless somebody asks for more.
const TRACED = 1e9;
const CUTS = [
  ["", "any score"],
  ["evalue", "an e-value of at most…"],
];

/** The form's settings, as values. */
export function readSettings(filters) {
  return {
    index: byId("index").value,
    tier: byId("tier").value,
    k: byId("k").value.trim(),
    cut: byId("cut").value,
    evalue: byId("evalue").value.trim(),
    align: byId("align").checked,
    self: byId("self").checked,
    trace: byId("trace").checked,
    where: byId("where").value.trim(),
    filters,
  };
}

/** Put settings into the form; the index must be shown already. */
export function applySettings(settings) {
  choose("tier", settings.tier);
  byId("k").value = settings.k || "";
  choose("cut", settings.cut);
  if (settings.evalue) byId("evalue").value = settings.evalue;
  byId("align").checked = settings.align;
  byId("self").checked = settings.self;
  byId("trace").checked = settings.trace;
}

function choose(id, value) {
  const select = byId(id);
  const option = [...select.options].find((one) => one.value === value && !one.disabled);
  if (option) select.value = value;
}

/** Show the tiers and cuts of an index. */
export function showIndex(facts) {
  const names = facts.plans.map((plan, at) => [
    plan.tier,
    `${plan.tier}${at === facts.plans.length - 1 ? " (the index's best)" : ""}`,
  ]);
  setOptions(byId("tier"), names, facts.plans.at(-1).tier);
  byId("trace").checked = facts.tiers.reduce((sum, tier) => sum + tier.bytes, 0) <= TRACED;
  showTier(facts);
}

const planOf = (facts) =>
  facts.plans.find((one) => one.tier === byId("tier").value) ?? facts.plans.at(-1);

/** Show what the chosen tier costs, and which cuts it has. */
export function showTier(facts) {
  const plan = planOf(facts);
  byId("cost").textContent =
    `Each query runs ${counted(plan.members.length, "model")} (${parametersText(plan.parameters)} parameters); then ` +
    `${counted(plan.rows, "row")} are compared in up to ${plan.dims} dimensions and ${bytesText(plan.bytes)} read: ${plan.funnel}.`;
  const last = facts.tiers.findIndex((one) => one.name === plan.tier);
  const traced = facts.tiers.slice(0, last + 1).reduce((sum, tier) => sum + tier.bytes, 0);
  byId("trace-note").textContent = `Compares every row: ${bytesText(traced)} read a query.`;
  const cuts = facts.evalues ? [CUTS[0]] : [...CUTS];
  const calibration = facts.calibration;
  if (calibration?.tiers.find((one) => one.tier === plan.tier)?.fdr) {
    cuts.push([
      "fdr",
      `a false discovery rate of ${Number((100 * calibration.fdr).toPrecision(3))} % (certified)`,
    ]);
  }
  const before = byId("cut").value;
  setOptions(byId("cut"), cuts, before);
  showCut(facts);
}

/** Show the fields of the chosen cut, and why there is none. */
export function showCut(facts) {
  byId("evalue-field").hidden = byId("cut").value !== "evalue";
  byId("cut-note").hidden = !facts.evalues;
  byId("cut-note").textContent = facts.evalues ? `No e-values: ${facts.evalues}.` : "";
}

/**
 * The body of a search.
 * @param {Object} settings
 * @param {string} fasta
 * @param {Object} facts Of the index.
 * @returns {Object}
 * @throws {Error} A field has no value of its kind.
 */
export function bodyOf(settings, fasta, facts) {
  const body = { fasta, index: settings.index, format: "json", map: true };
  body.align = settings.align;
  body.exclude_self = settings.self;
  body.trace = settings.trace;
  if (settings.tier) body.to_tier = settings.tier;
  if (settings.where) body.where = settings.where;
  if (settings.k) body.k = whole(settings.k);
  if (settings.cut === "evalue") body.evalue = positive(settings.evalue);
  if (settings.cut === "fdr") body.fdr = facts.calibration.fdr;
  return body;
}

/** A mistake in a field of the form. */
export class FieldError extends Error {
  constructor(field, message) {
    super(message);
    this.field = field;
    this.status = 422;
  }
}

function whole(text) {
  if (!/^\d+$/.test(text) || Number(text) < 1) {
    throw new FieldError("k", `the number of hits is a whole number, 1 or more; found ${text}`);
  }
  return Number(text);
}

function positive(text) {
  const value = Number(text);
  if (!(text && value > 0 && Number.isFinite(value))) {
    throw new FieldError(
      "evalue",
      `an e-value is a number above 0, for example 1e-3; found ${text || "nothing"}`,
    );
  }
  return value;
}
