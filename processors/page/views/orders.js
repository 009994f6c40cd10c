// Lists all orders, the latest change first, or the orders with an anomaly.

import { get } from "../api.js";
import { h, replace } from "../dom.js";
import { duration, eventTime, money, time } from "../format.js";
import { ANOMALIES, STATUSES } from "../words.js";
import { filter, idLink, pager, several, status } from "./parts.js";

const ORDER_STATUSES = [
  "paid",
  "partially_refunded",
  "refunded",
  "over_refunded",
  "disputed",
  "charged_back",
  "authorised",
  "voided",
  "failed",
  "unknown",
];

export async function orders(place, { query, signal }) {
  const choices = ORDER_STATUSES.map((name) => [name, STATUSES[name]]);
  await list(place, signal, {
    title: "Orders",
    parts: ["orders"],
    query,
    asked: { status: query.status },
    choice: filter("Status", ["orders"], query, "status", [["", "All"], ...choices]),
    none: query.status
      ? "No order has this status."
      : "No orders yet. Plexy’s first delivery creates an order.",
  });
}

export async function anomalies(place, { query, signal }) {
  const choices = Object.entries(ANOMALIES).map(([name, { title }]) => [name, title]);
  const words = ANOMALIES[query.anomaly];
  await list(place, signal, {
    title: "Orders with anomalies",
    parts: ["anomalies"],
    query,
    asked: { anomaly: query.anomaly || "any" },
    choice: [
      filter("Anomaly", ["anomalies"], query, "anomaly", [["", "Any"], ...choices]),
      words && h("p", {}, words.means, " ", h("strong", {}, "What to do: "), words.todo),
    ],
    none: query.anomaly ? "No order has this anomaly." : "No order has an anomaly.",
  });
}

async function list(place, signal, { title, parts, query, asked, choice, none }) {
  const above = [h("h1", {}, title), choice];
  replace(place, above, h("p", { class: "quiet" }, "Reading the orders…"));
  const given = Object.entries({ ...asked, cursor: query.cursor }).filter(([, value]) => value);
  const { body } = await get(`/orders?${new URLSearchParams(given)}`, { signal });
  replace(
    place,
    above,
    body.orders.length
      ? h("ul", { class: "list" }, body.orders.map(listed))
      : h("p", { class: "empty" }, body.cursor ? "No match here; see the older orders." : none),
    pager(parts, query, body.cursor),
  );
}

/** Return the time of an order's last change or, in a list by anomaly, of its latest event. */
function changed(order) {
  if (order.changed_at_ms === null) return [", latest event ", eventTime(order.last_event)];
  return [", changed ", time(order.changed_at_ms)];
}

/** One order of a list. */
export function listed(order) {
  const waiting = order.waiting_since;
  return h(
    "li",
    {},
    h("p", { class: "first" }, idLink("orders", order.order_id), " ", status(order.status)),
    h(
      "p",
      { class: "sums" },
      Object.entries(order.totals).map(([currency, { net }]) => h("span", {}, money(net, currency))),
    ),
    h("p", { class: "quiet" }, several(order.payments, "payment"), changed(order)),
    order.anomalies.length > 0 &&
      h(
        "p",
        { class: "flags" },
        order.anomalies.map((name) => h("span", { class: "badge anomaly" }, ANOMALIES[name]?.title ?? name)),
      ),
    waiting !== null &&
      h("p", { class: "quiet" }, `A payment has been missing for ${duration(Date.now() - Number(waiting) * 1000)}, since `, eventTime(waiting)),
  );
}
