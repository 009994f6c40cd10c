// Makes and reads the page's addresses, such as `#/orders/<id>`, so that readers can send each
// other a link to an order. The part after the `#` never reaches a server or its logs.

import { wellFormed } from "./api.js";

/** Return the address of a view from its parts, which may contain any characters. */
export function link(parts, query = {}) {
  const path = parts.map((part) => encodeURIComponent(wellFormed(part))).join("/");
  const given = Object.entries(query).filter(([, value]) => value);
  return `#/${path}${given.length ? `?${new URLSearchParams(given)}` : ""}`;
}

/** Return the parts and the query of the current address. */
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

/** Call a function for each address that the reader visits, including the first. */
export function route(show) {
  addEventListener("hashchange", () => show(here()));
  show(here());
}
