// Starts the page: chooses the view of an address, and draws the frame around every view. A view is
// a function. Its arguments are the element that it fills, the view's address, and a signal that
// aborts when the reader leaves the view.

import { get } from "./api.js";
import { h, replace, say } from "./dom.js";
import { setDecimals } from "./format.js";
import { link, route } from "./router.js";
import { start } from "./token.js";
import { anomalies, orders } from "./views/orders.js";
import { event } from "./views/event.js";
import { order } from "./views/order.js";
import { overview } from "./views/overview.js";
import { payment } from "./views/payment.js";
import { quarantine } from "./views/quarantine.js";
import { search } from "./views/search.js";

const VIEWS = {
  "": () => [overview, "Overview"],
  orders: (id) => (id === undefined ? [orders, "Orders"] : [order, `Order ${id}`]),
  payments: (id) => (id === undefined ? null : [payment, `Payment ${id}`]),
  events: (id) => (id === undefined ? null : [event, `Event ${id}`]),
  anomalies: () => [anomalies, "Orders with anomalies"],
  quarantine: () => [quarantine, "Quarantine"],
  search: () => [search, "Search"],
};

const content = document.getElementById("content");
let left = new AbortController();
let isFirst = true;

async function show({ parts, query }) {
  left.abort();
  left = new AbortController();
  const { signal } = left;
  const section = parts[0] ?? "";
  const known = Object.hasOwn(VIEWS, section) && parts.length <= 2 ? VIEWS[section](parts[1]) : null;
  const [view, title] = known ?? [nowhere, "Not found"];
  document.title = `${title} · plexy-ledger`;
  markCurrent(section);
  if (section !== "search") document.getElementById("wanted").value = "";
  const place = h("div", { class: `view ${view.name}` });
  replace(content, place);
  // Readers who use the keyboard or a screen reader continue at the beginning of the new view.
  if (!isFirst) {
    content.focus({ preventScroll: true });
    scrollTo(0, 0);
    say(title);
  }
  isFirst = false;
  await attempt(place, signal, () => view(place, { id: parts[1], query, signal }));
}

async function attempt(place, signal, work) {
  try {
    await work();
  } catch (error) {
    if (signal.aborted || error.name === "AbortError") return;
    replace(place, failure(error, () => attempt(place, signal, work)));
  }
}

function failure(error, again) {
  const isMissing = error.status === 404;
  return h(
    "section",
    { class: "empty", role: "alert" },
    h("h1", {}, isMissing ? "Not in the ledger" : "The request failed"),
    h("p", {}, sentence(error.message)),
    isMissing &&
      h("p", {}, "A new delivery may take a second to appear. Is the id complete?"),
    h("button", { type: "button", onclick: again }, "Try again"),
  );
}

function sentence(text) {
  return `${text.slice(0, 1).toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}`;
}

function nowhere(place) {
  replace(
    place,
    h("h1", {}, "There is no such page"),
    h("p", {}, h("a", { href: link([]) }, "To the overview")),
  );
}

function markCurrent(section) {
  for (const anchor of document.querySelectorAll("nav a")) {
    const isCurrent = anchor.getAttribute("href") === `#/${section}`;
    if (isCurrent) anchor.setAttribute("aria-current", "page");
    else anchor.removeAttribute("aria-current");
  }
}

document.getElementById("skip").addEventListener("click", (clicked) => {
  // The part of the address after the # names the view. A jump to an element would change this
  // part, and so leave the view.
  clicked.preventDefault();
  content.focus();
});

document.getElementById("search").addEventListener("submit", (submitted) => {
  submitted.preventDefault();
  const wanted = document.getElementById("wanted").value.trim();
  if (wanted) location.hash = link(["search"], { q: wanted });
});

start();
const { timeZone } = Intl.DateTimeFormat().resolvedOptions();
document.getElementById("zone").textContent =
  `Times are in your own zone, ${timeZone}; point at a time for UTC.`;
await attempt(content, left.signal, async () => {
  setDecimals((await get("currencies.json")).body);
  route(show);
});
