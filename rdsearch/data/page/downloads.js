/** Results as files: the same search again, in another format. */

import { save } from "./dom.js";

const ENDINGS = { table: "txt" };
const ALIGNED = new Set(["m8", "a3m"]);

/**
 * Formats that can be downloaded: pairs of name and label.
 * @param {Object} limits Of the server.
 * @param {number} queries
 */
export const formatsFor = (limits, queries) =>
  Object.entries(limits.formats)
    .filter(([name]) => name !== "a3m" || queries === 1)
    .map(([name, help]) => [name, `${name}: ${help}`]);

/** The body that asks for a format. */
export function downloadBody(body, format) {
  const { map, ...rest } = body;
  return { ...rest, format, align: rest.align || ALIGNED.has(format) };
}

/** Save an answer under a name made from the first query. */
export async function saveAnswer(answer, format, results) {
  const id = results.length === 1 ? results[0].query.id : `${results.length}-queries`;
  const name = id.replace(/[^\w.-]+/g, "_").slice(0, 60) || "query";
  save(await answer.blob(), `rdsearch-${name}.${ENDINGS[format] ?? format}`);
}
