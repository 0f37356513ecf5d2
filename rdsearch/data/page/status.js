/** What the page says: that it searches, how far it is, and what went wrong. */

import { byId, el } from "./dom.js";
import { counted, grouped } from "./numbers.js";

let ticking = null;

/** Say something to who listens. */
export const say = (text) => {
  byId("status").textContent = text;
};

/** Nothing is going on any more. */
export function quiet() {
  clearInterval(ticking);
  ticking = null;
  byId("progress").hidden = true;
}

/**
 * Show that a search runs.
 * @param {Object|null} job A job object; null for a search that is answered at once.
 */
export function showProgress(job) {
  const bar = byId("progress-bar");
  byId("progress").hidden = false;
  if (!job) {
    const began = performance.now();
    bar.removeAttribute("value");
    const tick = () => {
      const seconds = Math.round((performance.now() - began) / 1000);
      byId("progress-text").textContent = seconds
        ? `Searching, ${counted(seconds, "second")}`
        : "Searching";
    };
    clearInterval(ticking);
    ticking = setInterval(tick, 1000);
    tick();
    say("Searching");
    return;
  }
  const { total, done } = job.sequences;
  if (job.state === "waiting") bar.removeAttribute("value");
  else [bar.max, bar.value] = [Math.max(total, 1), done];
  const text =
    job.state === "waiting"
      ? `A job of ${counted(total, "sequence")} waits for its turn`
      : `${grouped(done)} of ${counted(total, "sequence")}, ${counted(job.hits ?? 0, "hit")}`;
  byId("progress-text").textContent = text;
  // In tenths: a reader of the screen is not to be talked over.
  const tenth = Math.floor((10 * done) / Math.max(total, 1));
  if (byId("status").dataset.tenth !== `${job.state}${tenth}`) {
    byId("status").dataset.tenth = `${job.state}${tenth}`;
    say(text);
  }
}

/** Take an error away. */
export function clearError() {
  byId("error").hidden = true;
  byId("error").replaceChildren();
  for (const field of document.querySelectorAll("[aria-invalid]"))
    field.removeAttribute("aria-invalid");
}

/**
 * Show an error.
 * @param {Error} error A Problem, or a mistake that the page itself found.
 * @param {function(): void} [again] Tries again.
 */
export function showError(error, again) {
  const several = (error.errors ?? []).length > 1 ? error.errors : [];
  const box = byId("error");
  box.replaceChildren(
    el("h2", {}, titleOf(error)),
    el("p", {}, sentence(error.message)),
    several.length
      ? el(
          "ul",
          {},
          several.map((one) => el("li", {}, el("b", {}, one.field), `: ${one.message}`)),
        )
      : "",
  );
  if (again && (error.retryAfter || [0, 429, 503, 504].includes(error.status))) {
    box.append(retry(error.retryAfter ?? 0, again));
  }
  box.hidden = false;
  box.scrollIntoView({ block: "nearest" });
}

function titleOf(error) {
  switch (error.status) {
    case 0:
      return "No answer";
    case 401:
      return error.kind === "key-wrong" ? "The key is wrong" : "A key is needed";
    case 429:
      return "The server is busy";
    case 503:
      return "The server is not ready";
    case 504:
      return "It took too long";
    default:
      return error.status >= 500 ? "The server failed" : "This cannot be searched";
  }
}

const sentence = (text) => {
  const found = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(found) ? found : `${found}.`;
};

function retry(seconds, again) {
  const button = el("button", { type: "button" });
  const until = Date.now() + seconds * 1000;
  const label = () => {
    const left = Math.ceil((until - Date.now()) / 1000);
    button.disabled = left > 0;
    button.textContent = left > 0 ? `Try again in ${counted(left, "second")}` : "Try again";
    if (left > 0 && button.isConnected) setTimeout(label, 500);
  };
  button.addEventListener("click", again);
  // It is in the page only after the caller has put it there.
  setTimeout(label);
  return button;
}
