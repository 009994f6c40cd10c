// Searches for an id among orders, payments and events; several of these may share the id.

import { find, pathOf } from "../api.js";
import { h, replace, say } from "../dom.js";
import { money } from "../format.js";
import { idLink, idText, outcomeBadge, several, status, totalsTable } from "./parts.js";

const KINDS = [
  ["orders", "Order", orderCard],
  ["payments", "Payment", paymentCard],
  ["events", "Event", eventCard],
];

export async function search(place, { query, signal }) {
  const wanted = query.q ?? "";
  document.getElementById("wanted").value = wanted;
  const title = h("h1", {}, "Search: ", h("span", { class: "id" }, idText(wanted)));
  replace(place, title, h("p", { class: "quiet" }, "Looking for an order, a payment and an event…"));
  const answers = await Promise.allSettled(KINDS.map(([kind]) => find(pathOf(kind, wanted), { signal })));
  const problems = answers.map(({ reason }) => reason).filter(Boolean);
  const fatal = problems.find(({ name, status }) => name === "AbortError" || status === 401);
  if (fatal || problems.length === KINDS.length) throw fatal ?? problems[0];
  const found = KINDS.map((kind, index) => [...kind, answers[index].value]).filter(([, , , body]) => body);
  const names = found.map(([, name]) => name.toLowerCase());
  const told = names.length ? `Found: ${names.join(", ")}.` : "Nothing has this id.";
  say(told);
  replace(
    place,
    title,
    h("p", {}, told),
    problems.map((problem) => h("p", { class: "quiet" }, `A lookup failed: ${problem.message}`)),
    found.length
      ? found.map(([kind, name, card, body]) =>
          h("article", { class: "card" }, h("h2", {}, `${name} `, idLink(kind, wanted)), card(body)),
        )
      : h(
          "section",
          { class: "empty" },
          h("p", {}, "No order, payment or event with exactly this id is in the ledger. Ids are case-sensitive."),
          h(
            "p",
            {},
            "A new delivery may take a second to appear; refused deliveries are in the ",
            h("a", { href: "#/quarantine" }, "quarantine"),
            ".",
          ),
        ),
  );
}

function orderCard(body) {
  return [
    h("p", {}, status(body.status), ` ${several(body.payments.length, "payment")}`),
    totalsTable(body.totals, "Totals by currency"),
  ];
}

function paymentCard(body) {
  return [
    h("p", {}, status(body.status), " ", body.amount === null ? "" : money(body.amount, body.currency)),
    h("p", {}, "It belongs to the order ", idLink("orders", body.order_id), "."),
  ];
}

function eventCard(body) {
  return [
    h("p", {}, outcomeBadge(body.outcome), ` delivered ${several(body.deliveries.length, "time")}`),
    body.order_id && h("p", {}, "It is counted in the order ", idLink("orders", body.order_id), "."),
    body.payment_id && h("p", {}, "It is about the payment ", idLink("payments", body.payment_id), "."),
  ];
}
