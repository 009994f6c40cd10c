// The page's addresses: `#/orders/<id>`, so that a link to an order can be sent. What stands behind
// the `#` never reaches a server or its logs.

import { wellFormed } from "./api.js";

/** Return the address of a page: its parts, each of which may hold any character. */
export function link(parts, query = {}) {
  const path = parts.map((part) => encodeURIComponent(wellFormed(part))).join("/");
  const given = Object.entries(query).filter(([, value]) => value);
  return `#/${path}${given.length ? `?${new URLSearchParams(given)}` : ""}`;
}

/** Return the parts and the query of the address that is shown. */
export function here() {
  const [, hash = "/"] = location.href.match(/#(.*)$/s) ?? [];
  const [path, search = ""] = hash.split(/\?(.*)/s);
  let parts = [];
  try {
    parts = path.split("/").slice(1).filter(Boolean).map(decodeURIComponent);
  } catch {
    parts = ["?"];
  }
  return { parts, query: Object.fromEntries(new URLSearchParams(search)) };
}

/** Call a function for each address that the reader goes to, the first one too. */
export function route(show) {
  addEventListener("hashchange", () => show(here()));
  show(here());
}
