// Follows `GET /live`, which sends a document each second as server-sent events. This module uses
// fetch, because an EventSource can't send the token. After a failure, this module reports that the
// data is stale, and connects again.

import { parse, request } from "./api.js";

const SILENT_MS = 5_000;
const AGAIN_MS = [500, 1_000, 2_000, 5_000];

/**
 * Follow until `signal` aborts. `onState` receives "live" or "stale", and also the problem if there
 * is one. Throws a Problem if the reader gives no token.
 */
export async function follow(signal, onDocument, onState) {
  for (let failures = 0; !signal.aborted; failures += 1) {
    try {
      await once(signal, (document) => {
        failures = 0;
        onState("live");
        onDocument(document);
      });
      if (!signal.aborted) onState("stale");
    } catch (error) {
      if (signal.aborted) return;
      // A reader who gives no token is not asked for the token again.
      if (error.status === 401) throw error;
      onState("stale", error.name === "AbortError" ? "The worker is silent." : error.message);
    }
    await pause(AGAIN_MS[Math.min(failures, AGAIN_MS.length - 1)], signal);
  }
}

async function once(signal, onDocument) {
  const silence = new AbortController();
  const abort = () => silence.abort();
  signal.addEventListener("abort", abort);
  // Only a timeout detects a connection that was lost without an error.
  let timer = setTimeout(abort, SILENT_MS);
  try {
    const answer = await request("/live", { signal: silence.signal, cache: "no-store" });
    if (!answer.ok) throw new Error(parse(await answer.text())?.detail ?? answer.statusText);
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let unread = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      clearTimeout(timer);
      timer = setTimeout(abort, SILENT_MS);
      const events = (unread + value).split("\n\n");
      unread = events.pop();
      for (const event of events) {
        const document = parse(event.replace(/^data: /, ""));
        if (document !== undefined) onDocument(document);
      }
    }
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", abort);
  }
}

function pause(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener(
      "abort",
      () => {
        clearTimeout(timer);
        resolve();
      },
      { once: true },
    );
  });
}
