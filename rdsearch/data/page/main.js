/** The page: what is typed becomes a search, and its answer results. */

import { Problem, askJson, key } from "./api.js";
import { byId, copied, el, setOptions } from "./dom.js";
import { downloadBody, formatsFor, saveAnswer } from "./downloads.js";
import { asFasta, count, records } from "./fasta.js";
import { FilterBox } from "./filterbox.js";
import { bytesText, counted, grouped } from "./numbers.js";
import { LONGEST, decode, encode } from "./permalink.js";
import { QueryBox } from "./querybox.js";
import { Results } from "./results.js";
import { search, tooLarge } from "./search.js";
import { applySettings, bodyOf, readSettings, showCut, showIndex, showTier } from "./settings.js";
import { clearError, quiet, say, showError, showProgress } from "./status.js";

let limits = null;
let indexes = new Map();
let running = null;
let results = null;
let fault = null;
let shown = "";
const filters = new FilterBox((error) => {
  fault = error;
});
const box = new QueryBox(
  () => countText(),
  (error) => showError(error),
  (name) => {
    clearError();
    say(`${name}: ${byId("fasta-count").textContent}`);
  },
);

let starting = null;
const facts = () => indexes.get(byId("index").value);

/** Ask what is served; false where that needs a key that is not there, or the server is not. */
function start() {
  if (starting?.key !== key.get()) {
    const own = { key: key.get() };
    starting = own;
    own.done = load(() => starting === own).finally(() => {
      if (starting === own) starting = null;
    });
  }
  return starting.done;
}

/** The same; of an older key nobody wants to know any more what came of it. */
async function load(current) {
  try {
    limits = await askJson("v1/limits");
    if (!current()) return false;
    byId("key-field").hidden = !limits.keys;
    byId("key").value = key.get();
    byId("k").max = limits.hits;
    if (limits.keys && !key.get()) {
      byId("key").focus();
      return false;
    }
    const found = (await askJson("v1/indexes")).indexes;
    if (!current()) return false;
    indexes = new Map(found.map((one) => [one.name, one]));
    setOptions(byId("index"), [...indexes.keys()], byId("index").value || found[0].name);
    byId("index-field").hidden = found.length < 2;
    takeIndex();
    clearError();
    return true;
  } catch (error) {
    if (current()) fail(error, () => restore());
    return false;
  }
}

function takeIndex() {
  const now = facts();
  showIndex(now);
  filters.setIndex(now);
  byId("index-facts").textContent =
    `${now.name}: ${counted(now.rows, "sequence")}, models ${now.family}, ${bytesText(now.bytes)}`;
  const weak = now.family === "mini";
  byId("notice").hidden = !weak;
  byId("notice").replaceChildren(
    ...(weak
      ? [
          el(
            "p",
            {},
            el("b", {}, "mini: for demonstration; not a good homology model."),
            " Hits of this index show how the search works, not what is related.",
          ),
        ]
      : []),
  );
}

function countText() {
  const { sequences, residues } = count(asFasta(box.text));
  byId("clear").hidden = !box.text;
  const parts = sequences ? [counted(sequences, "sequence"), counted(residues, "residue")] : [];
  if (sequences && limits && tooLarge({ fasta: box.text }, limits)) parts.push("searched as a job");
  byId("fasta-count").textContent = parts.join(", ");
}

function fail(error, again) {
  if (error.name === "AbortError") {
    say("Cancelled");
    return;
  }
  if (error.status === 401) {
    byId("key-field").hidden = false;
    byId("key").setAttribute("aria-invalid", "true");
    byId("key").focus();
  }
  if (error.field) {
    byId(error.field).setAttribute("aria-invalid", "true");
    byId(error.field).focus();
  }
  showError(error, again);
}

/** Do what can be cancelled, one thing at a time, and show how far it is. */
async function busy(work, again) {
  running?.abort();
  const own = new AbortController();
  running = own;
  clearError();
  try {
    await work(own.signal);
  } catch (error) {
    if (running === own) fail(error, again);
  } finally {
    if (running === own) {
      running = null;
      quiet();
    }
  }
}

async function runSearch() {
  clearError();
  const again = () => runSearch();
  if (!indexes.size && !(await start())) {
    if (limits?.keys && !key.get())
      fail(new Problem({ status: 401, detail: "this server asks for a key; type it above" }));
    return;
  }
  const fasta = asFasta(box.text);
  let body;
  const settings = readSettings(filters.value());
  try {
    if (!fasta)
      throw Object.assign(new Error("there is no sequence yet: paste one, or try the example"), {
        status: 422,
        field: "fasta",
      });
    if (fault) throw Object.assign(fault, { status: 422 });
    body = bodyOf(settings, fasta, facts());
  } catch (error) {
    fail(error);
    return;
  }
  await busy(async (signal) => {
    const answer = await (await search(body, limits, signal, showProgress)).json();
    remember(settings, fasta);
    showResults(body, answer);
  }, again);
}

/** Put the search into the address; the one before is a step back. */
function remember(settings, fasta) {
  const before = shown;
  shown = `#${encode(settings, fasta, count(fasta).residues)}`;
  if (shown === location.hash) return;
  if (before) history.pushState(null, "", shown);
  else history.replaceState(null, "", shown);
}

function showResults(body, answer) {
  const tools = toolsOf(body, answer);
  const context = { queries: records(body.fasta), facts: facts(), tools, onNeighbours };
  results = new Results(byId("results"), answer, context);
  const hits = answer.results.reduce((sum, one) => sum + one.hits.length, 0);
  say(`${counted(hits, "hit")} of ${counted(answer.results.length, "query", "queries")}`);
  document.title = `${answer.results.length === 1 ? answer.results[0].query.id : counted(answer.results.length, "query", "queries")} – rdsearch`;
  results.heading.focus({ preventScroll: true });
  byId("results").scrollIntoView({ block: "start" });
}

function toolsOf(body, answer) {
  const said = el("span", { class: "quiet small", role: "status" });
  const format = el("select", { id: "format", "aria-label": "Format of the download" });
  setOptions(format, formatsFor(limits, answer.results.length), "tsv");
  const get = el("button", { type: "button", class: "plain", id: "download" }, "Download");
  const download = () =>
    busy(async (signal) => {
      const wanted = format.value;
      const file = await search(downloadBody(body, wanted), limits, signal, showProgress);
      await saveAnswer(file, wanted, answer.results);
      say("Downloaded");
    }, download);
  get.addEventListener("click", download);
  const link = el("button", { type: "button", class: "plain", id: "link" }, "Copy link");
  link.addEventListener("click", async () => {
    const whole = decode(shown)?.fasta
      ? "Copied"
      : `Copied, without the sequences: they have more than ${grouped(LONGEST)} residues`;
    said.textContent = (await copied(location.href)) ? whole : "The link is in the address bar";
  });
  return el("div", { class: "results-tools" }, said, format, get, link);
}

/** Search from a hit. */
function onNeighbours(protein) {
  const name = [protein.accession, protein.protein_name ?? protein.description]
    .filter(Boolean)
    .join(" ");
  box.text = `>${name}\n${protein.sequence.replace(/.{60}/g, "$&\n").trimEnd()}\n`;
  byId("self").checked = true;
  scrollTo({ top: 0 });
  runSearch();
}

/** Show what the address says, and search if it has sequences. */
async function restore() {
  const link = decode(location.hash);
  const ready = await start();
  if (link) {
    shown = location.hash;
    if (link.fasta) box.text = link.fasta;
    if (ready) {
      if (indexes.has(link.settings.index)) byId("index").value = link.settings.index;
      takeIndex();
      applySettings(link.settings);
      showTier(facts());
      byId("cut").value = link.settings.cut;
      if (byId("cut").selectedIndex < 0) byId("cut").value = "";
      showCut(facts());
      filters.set(link.settings.filters);
      byId("where").value = link.settings.where;
      filters.counted();
      byId("filters-part").open = Boolean(link.settings.where);
      if (link.fasta) runSearch();
    }
  }
  countText();
}

function listen() {
  byId("search").addEventListener("submit", (event) => {
    event.preventDefault();
    runSearch();
  });
  byId("search").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      runSearch();
    }
  });
  byId("index").addEventListener("change", takeIndex);
  byId("tier").addEventListener("change", () => showTier(facts()));
  byId("cut").addEventListener("change", () => showCut(facts()));
  byId("key").addEventListener("input", () => {
    key.set(byId("key").value.trim());
    byId("key").removeAttribute("aria-invalid");
  });
  byId("key").addEventListener("change", () => {
    if (!indexes.size && key.get()) restore();
  });
  byId("cancel").addEventListener("click", () => {
    running?.abort();
    box.field.focus();
  });
  byId("skip").addEventListener("click", (event) => {
    // The address keeps the search.
    event.preventDefault();
    byId("results").focus();
  });
  // Paper cannot be asked for more.
  addEventListener("beforeprint", () => results?.table?.all());
  addEventListener("hashchange", () => {
    if (location.hash !== shown) restore();
  });
}

listen();
restore();
