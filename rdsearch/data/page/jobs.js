/** Searches too large for one answer: a job, its progress, and its result. */

import { Problem, ask, askJson } from "./api.js";

const FINAL = ["done", "failed", "cancelled"];
const PAUSE = 1_000;

/** The job objects of an event stream, as they come. */
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const parts = (rest + value).split(/\r?\n\r?\n/);
      rest = parts.pop();
      for (const part of parts) {
        const lines = part.split(/\r?\n/).filter((line) => line.startsWith("data:"));
        if (lines.length)
          yield JSON.parse(lines.map((line) => line.slice(5).trimStart()).join("\n"));
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** Follow a job to its end. EventSource cannot send a key; a stream that breaks is opened again. */
async function followed(job, signal, onProgress) {
  let now = job;
  onProgress(now);
  while (!FINAL.includes(now.state)) {
    try {
      const stream = await ask(path(job, "/events"), { signal });
      for await (now of events(stream)) onProgress(now);
    } catch (error) {
      if (error.name === "AbortError" || (error instanceof Problem && error.status)) throw error;
    }
    if (FINAL.includes(now.state)) break;
    await new Promise((resume) => setTimeout(resume, PAUSE));
    if (signal?.aborted) throw new DOMException("cancelled", "AbortError");
    now = await askJson(path(job), { signal });
    onProgress(now);
  }
  return now;
}

const path = (job, part = "") => `v1/jobs/${encodeURIComponent(job.id)}${part}`;

/**
 * Run a job.
 * @param {Object} body Of a search.
 * @param {AbortSignal} signal Aborting cancels the job on the server too.
 * @param {function(Object): void} onProgress Called with job objects.
 * @returns {Promise<Response>} The result.
 */
export async function runJob(body, signal, onProgress) {
  const job = await askJson("v1/jobs", { method: "POST", body, signal });
  // Leaving the page leaves the job alone; who cancels does not want it any more.
  const cancel = () => ask(path(job), { method: "DELETE" }).catch(() => {});
  if (signal?.aborted) {
    await cancel();
    throw new DOMException("cancelled", "AbortError");
  }
  signal?.addEventListener("abort", cancel, { once: true });
  try {
    const end = await followed(job, signal, onProgress);
    if (end.state === "failed") throw new Problem(end.error ?? { detail: "the job failed" });
    if (end.state === "cancelled") {
      throw new Problem({
        status: 409,
        detail: "the job was cancelled on the server; search again",
      });
    }
    return await ask(path(job, "/result"), { signal });
  } finally {
    signal?.removeEventListener("abort", cancel);
  }
}
