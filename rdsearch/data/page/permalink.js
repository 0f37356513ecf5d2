/** A search in the address: behind the #, where no server sees it. */

/** Longest sequences, in characters of FASTA, that an address carries. */
export const LONGEST = 2_000;

// Short names in the address, and their kinds.
const FIELDS = {
  index: "index",
  tier: "tier",
  k: "k",
  cut: "cut",
  evalue: "evalue",
  fdr: "fdr",
  where: "where",
};
const SWITCHES = ["align", "self", "trace"];

/**
 * The fragment of a search.
 * @param {Object} settings As `readSettings` of settings.js gives them.
 * @param {string} fasta Left out if it has more than LONGEST residues.
 * @param {number} residues
 * @returns {string} Without the #.
 */
export function encode(settings, fasta, residues) {
  const found = new URLSearchParams();
  for (const [field, name] of Object.entries(FIELDS)) {
    const value = settings[field];
    if (value !== "" && value !== null && value !== undefined) found.set(name, value);
  }
  for (const name of SWITCHES) found.set(name, settings[name] ? "1" : "0");
  if (settings.filters?.length) found.set("filters", JSON.stringify(settings.filters));
  if (fasta && residues <= LONGEST && fasta.length <= 3 * LONGEST) found.set("fasta", fasta);
  return found.toString();
}

/**
 * What a fragment says.
 * @param {string} fragment With or without the #.
 * @returns {{settings: Object, fasta: string}|null} null where it is no search.
 */
export function decode(fragment) {
  const found = new URLSearchParams(fragment.replace(/^#/, ""));
  if (!found.has("index") && !found.has("fasta")) return null;
  const settings = {};
  for (const [field, name] of Object.entries(FIELDS)) settings[field] = found.get(name) ?? "";
  for (const name of SWITCHES) settings[name] = found.get(name) === "1";
  settings.filters = filtersOf(found.get("filters"));
  return { settings, fasta: found.get("fasta") ?? "" };
}

function filtersOf(text) {
  try {
    const found = JSON.parse(text ?? "[]");
    const fits = (one) => one && typeof one.column === "string" && typeof one.operator === "string";
    return Array.isArray(found) ? found.filter(fits).slice(0, 50) : [];
  } catch {
    return [];
  }
}
