/** Filters as the SQL condition that is sent. */

const NUMBER = /^[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?$/i;
const DAY = /^\d{4}-\d{2}-\d{2}$/;

/**
 * What kind of filter a column has.
 * @param {string} type SQL type, for example "VARCHAR" or "BIGINT[]".
 * @returns {"text"|"number"|"boolean"|"date"|"list"|"other"}
 */
export function kindOf(type) {
  const name = type.toUpperCase();
  if (name.endsWith("]")) return "list";
  if (/^(STRUCT|MAP|UNION)\b/.test(name)) return "other";
  if (/^(VARCHAR|TEXT|STRING|CHAR|UUID|ENUM)/.test(name)) return "text";
  if (
    /^(U?(TINYINT|SMALLINT|INTEGER|INT|BIGINT|HUGEINT)|FLOAT|REAL|DOUBLE|DECIMAL|NUMERIC)\b/.test(
      name,
    )
  )
    return "number";
  if (name === "BOOLEAN") return "boolean";
  return /^(DATE|TIMESTAMP)/.test(name) ? "date" : "other";
}

const PRESENCE = [
  ["missing", "is missing"],
  ["present", "is present"],
];

/** Operators of a kind of column: pairs of name and label. */
export const OPERATORS = {
  text: [
    ["contains", "contains"],
    ["is", "is"],
    ["not", "is not"],
    ["starts", "starts with"],
    ...PRESENCE,
  ],
  number: [["range", "between"], ...PRESENCE],
  boolean: [["true", "is true"], ["false", "is false"], ...PRESENCE],
  date: [["range", "between"], ...PRESENCE],
  list: [["has", "contains"], ...PRESENCE],
  other: PRESENCE,
};

/** A column's name in SQL. */
export const quotedName = (name) => `"${name.replaceAll('"', '""')}"`;

/** Text in SQL. */
export const quotedText = (text) => `'${text.replaceAll("'", "''")}'`;

function number(text, column) {
  const value = text.trim();
  if (value && !NUMBER.test(value)) throw new Error(`${column}: ${value} is not a number`);
  return value;
}

function day(text, column) {
  const value = text.trim();
  if (value && !DAY.test(value)) throw new Error(`${column}: ${value} is not a date (YYYY-MM-DD)`);
  return value && `DATE ${quotedText(value)}`;
}

function range(name, low, high) {
  return [low && `${name} >= ${low}`, high && `${name} <= ${high}`].filter(Boolean).join(" AND ");
}

function listed(type, value, column) {
  const element = kindOf(type.replace(/\[\d*\]$/, ""));
  if (element === "number") return number(value, column);
  if (element === "date") return day(value, column);
  return quotedText(value);
}

/**
 * One filter as SQL.
 * @param {{column: string, type: string, operator: string, value?: string, low?: string, high?: string}} filter
 * @returns {string} "" where nothing is filled in yet.
 * @throws {Error} A value is not of the column's kind.
 */
export function condition({ column, type, operator, value = "", low = "", high = "" }) {
  const name = quotedName(column);
  const given = value.trim();
  switch (operator) {
    case "missing":
      return `${name} IS NULL`;
    case "present":
      return `${name} IS NOT NULL`;
    case "true":
      return `${name}`;
    case "false":
      return `NOT ${name}`;
    case "range":
      if (kindOf(type) === "number") return range(name, number(low, column), number(high, column));
      // The last day counts as a whole.
      return range(`CAST(${name} AS DATE)`, day(low, column), day(high, column));
  }
  if (!given) return "";
  switch (operator) {
    case "contains":
      return `contains(lower(${name}), lower(${quotedText(given)}))`;
    case "starts":
      return `starts_with(lower(${name}), lower(${quotedText(given)}))`;
    case "is":
      return `${name} = ${quotedText(given)}`;
    case "not":
      return `${name} IS DISTINCT FROM ${quotedText(given)}`;
    case "has":
      return `list_contains(${name}, ${listed(type, given, column)})`;
  }
  throw new Error(`${column}: there is no filter "${operator}"`);
}

/** All filters, combined with AND. */
export const where = (filters) => filters.map(condition).filter(Boolean).join(" AND ");
