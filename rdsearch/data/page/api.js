/** The server's API: requests, and its errors as one kind of exception. */

const KEY = "rdsearch.key";
let kept = "";

/** The key, kept until the tab is closed. */
export const key = {
  get: () => {
    try {
      return sessionStorage.getItem(KEY) ?? kept;
    } catch {
      return kept;
    }
  },
  set: (value) => {
    kept = value;
    try {
      if (value) sessionStorage.setItem(KEY, value);
      else sessionStorage.removeItem(KEY);
    } catch {
      // Storage is switched off: this page remembers it.
    }
  },
};

/** An answer that is an error, as the server tells it. */
export class Problem extends Error {
  /**
   * @param {Object} facts The JSON object of the answer.
   * @param {number|null} retryAfter Seconds after which to try again.
   */
  constructor(facts, retryAfter = null) {
    super(facts.detail || facts.title || "the server gave no reason");
    this.kind = String(facts.type ?? "")
      .split(":")
      .pop();
    this.status = facts.status ?? 0;
    this.errors = Array.isArray(facts.errors) ? facts.errors : [];
    this.retryAfter = retryAfter;
  }
}

async function problemOf(answer) {
  const retry = Number(answer.headers.get("Retry-After"));
  let facts;
  try {
    facts = await answer.json();
  } catch {
    facts = { detail: `the server answered ${answer.status} ${answer.statusText}` };
  }
  return new Problem({ status: answer.status, ...facts }, retry > 0 ? retry : null);
}

/**
 * Ask the API.
 * @param {string} path Below the page, for example "v1/limits".
 * @param {{method?: string, body?: Object, signal?: AbortSignal}} [options]
 * @returns {Promise<Response>} Of a status below 300.
 * @throws {Problem} The server says no, or does not answer (status 0).
 */
export async function ask(path, { method = "GET", body, signal } = {}) {
  const headers = {};
  if (key.get()) headers.Authorization = `Bearer ${key.get()}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let answer;
  try {
    const address = new URL(path, document.baseURI);
    answer = await fetch(address, { method, headers, signal, body: body && JSON.stringify(body) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({
      status: 0,
      detail: `the server does not answer (${error.message}); is it running?`,
    });
  }
  if (!answer.ok) throw await problemOf(answer);
  return answer;
}

/** Ask for JSON. */
export const askJson = async (path, options) => (await ask(path, options)).json();

/** The path of an index. */
export const indexPath = (name) => `v1/indexes/${encodeURIComponent(name)}`;
