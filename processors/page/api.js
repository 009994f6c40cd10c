// Asks the worker that served this page for a path's JSON; throws a Problem with the worker's text.
// Integers that a double can't hold are returned as BigInt, so that no amount loses a digit.

import { ask, authorization, kept } from "./token.js";

// A worker that can answer a request does so within this time.
const SILENT_MS = 30_000;

/** A failed request; `status` is 0 if there was no answer. */
export class Problem extends Error {
  constructor(status, code, detail) {
    super(detail);
    this.status = status;
    this.code = code;
  }
}

/** Return the worker's answer; ask the reader for the token if the worker requires one. */
export async function request(path, options = {}) {
  for (;;) {
    const token = kept();
    const headers = token ? { Authorization: authorization(token) } : {};
    let answer;
    try {
      answer = await patient(path, { ...options, headers });
    } catch (error) {
      if (options.signal?.aborted) throw error;
      throw new Problem(0, "unreachable", "The worker does not answer. It may be restarting.");
    }
    if (answer.status !== 401) return answer;
    if (!(await ask(token))) {
      throw new Problem(401, "unauthorized", "Without the token the ledger shows nothing.");
    }
  }
}

async function patient(path, options) {
  const silence = new AbortController();
  const timer = setTimeout(() => silence.abort(), SILENT_MS);
  const signal = AbortSignal.any([silence.signal, options.signal ?? silence.signal]);
  try {
    return await fetch(path, { ...options, signal });
  } finally {
    clearTimeout(timer);
  }
}

/** Return a document and its entity tag; throw a Problem for every other answer. */
export async function get(path, options = {}) {
  const answer = await request(path, options);
  const body = parse(await answer.text());
  if (!answer.ok) {
    throw new Problem(answer.status, body?.code ?? "error", body?.detail ?? answer.statusText);
  }
  if (body === undefined) throw new Problem(answer.status, "error", "The answer is not JSON.");
  return { body, tag: answer.headers.get("ETag") };
}

/** Return a document, or null if the worker answers that there is no such document. */
export async function find(path, options = {}) {
  try {
    return (await get(path, options)).body;
  } catch (error) {
    if (error.status === 404) return null;
    throw error;
  }
}

/** Return the path of one order, payment or event. */
export function pathOf(kind, id, below = "", query = {}) {
  if (id === "." || id === "..") {
    throw new Problem(404, "not_askable", "A browser can't request an id of only dots; curl can.");
  }
  const given = Object.entries(query).filter(([, value]) => value !== "" && value !== undefined);
  const search = given.length ? `?${new URLSearchParams(given)}` : "";
  return `/${kind}/${encodeURIComponent(wellFormed(id))}${below}${search}`;
}

/** Return the value of a JSON text, with exact integers; undefined if the text is not JSON. */
export function parse(text) {
  try {
    return JSON.parse(text, (_key, value, context) =>
      typeof value === "number" && !Number.isSafeInteger(value) && /^-?\d+$/.test(context?.source)
        ? BigInt(context.source)
        : value,
    );
  } catch {
    return undefined;
  }
}

/** Replace unpaired surrogates: they can't be encoded, and no id has one. */
export function wellFormed(text) {
  return text.toWellFormed?.() ?? text;
}
