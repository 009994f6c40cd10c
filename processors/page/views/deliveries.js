// Shows the timeline of deliveries. For each delivery, it shows the event's time, and the
// delivery's arrival and outcome. On request, it also shows the delivery's bytes.

import { get, pathOf } from "../api.js";
import { arrange, fingerprint, h, replace } from "../dom.js";
import { decoded, eventTime, money, time } from "../format.js";
import { SIGNATURES, outcome } from "../words.js";
import { idLink, idText, outcomeBadge } from "./parts.js";

// If an order has more deliveries than this, only the latest ones are shown at first.
const MOST = 50;

/**
 * Return a timeline. Its `update` shows the given deliveries; entries that the reader has opened
 * stay open. Its `mark` marks the deliveries that arrived after a time, in Unix milliseconds; null
 * means the present time, so no delivery is marked.
 */
export function timeline() {
  const list = h("ol", { class: "timeline" });
  const earlier = h("button", { type: "button", class: "quiet", onclick: showAll });
  const known = new Map();
  let deliveries = [];
  let asOfMs = null;
  let isWhole = false;

  function draw() {
    const from = isWhole ? 0 : Math.max(0, deliveries.length - MOST);
    earlier.hidden = from === 0;
    replace(earlier, `Show ${from} earlier deliveries`);
    arrange(list, deliveries.slice(from).map(marked));
  }

  function marked(delivery) {
    const key = `${delivery.place.partition}/${delivery.place.offset}`;
    const text = fingerprint(delivery);
    if (known.get(key)?.text !== text) known.set(key, { text, item: itemOf(delivery) });
    const { item } = known.get(key);
    const isLater = asOfMs !== null && delivery.received_at_ms > asOfMs;
    item.classList.toggle("later", isLater);
    item.querySelector(".not-yet").hidden = !isLater;
    return item;
  }

  function showAll() {
    isWhole = true;
    draw();
    list.querySelector("a").focus();
  }

  return {
    element: h("div", {}, earlier, list),
    update(told) {
      deliveries = told;
      draw();
    },
    mark(ms) {
      // The deliveries that had arrived by an early time may be among the hidden ones, so all
      // deliveries are shown.
      isWhole ||= ms !== null;
      asOfMs = ms;
      draw();
    },
  };
}

function itemOf(delivery) {
  const { place, signature = "not_checked" } = delivery;
  const isGood = signature === "good";
  return h(
    "li",
    { class: delivery.outcome === "folded" ? "counts" : "dropped" },
    h(
      "div",
      { class: "line" },
      h("strong", {}, delivery.type === undefined ? "no event" : idText(delivery.type)),
      delivery.amount !== undefined && h("span", {}, money(delivery.amount, delivery.currency)),
      " ",
      idLink("events", delivery.event_id),
      " ",
      outcomeBadge(delivery.outcome),
      h("span", { class: "badge not-yet", hidden: true }, "Had not arrived"),
    ),
    h(
      "dl",
      { class: "times" },
      h("div", {}, h("dt", {}, "Arrived"), h("dd", {}, time(delivery.received_at_ms))),
      delivery.created !== undefined &&
        h("div", {}, h("dt", {}, "Occurred"), h("dd", {}, eventTime(delivery.created))),
      delivery.payment_id !== undefined &&
        h("div", {}, h("dt", {}, "Payment"), h("dd", {}, idLink("payments", delivery.payment_id))),
    ),
    delivery.outcome !== "folded" &&
      h("p", { class: "why" }, outcome(delivery.outcome).means, delivery.detail && ` (${delivery.detail})`),
    h("p", { class: isGood ? "signature good" : `signature ${signature}` }, SIGNATURES[signature] ?? signature),
    rawBody(delivery, place),
  );
}

function rawBody(delivery, place) {
  const where = h("div", { class: "raw" });
  let isAsked = false;
  const details = h(
    "details",
    {
      ontoggle: async () => {
        if (!details.open || isAsked) return;
        isAsked = true;
        replace(where, h("p", { class: "quiet" }, "Reading the log…"));
        try {
          replace(where, await raw(delivery, place));
        } catch (error) {
          isAsked = false;
          replace(where, h("p", { class: "wrong", role: "alert" }, error.message));
        }
      },
    },
    h("summary", {}, "Raw body"),
    where,
  );
  return details;
}

async function raw(delivery, place) {
  const { body } = await get(pathOf("events", delivery.event_id, "", { raw: "true" }));
  const found = body.deliveries.find(
    (each) => each.place.partition === place.partition && each.place.offset === place.offset,
  );
  if (!found) return [h("p", {}, "The ledger no longer finds this delivery under its event.")];
  const text = decoded(found.body ?? "");
  return [
    h("pre", { class: "body", tabindex: "0", role: "region", "aria-label": `Raw body of ${delivery.event_id}` }, text ?? `not text, base64:\n${found.body}`),
    h(
      "dl",
      { class: "headers" },
      h("div", {}, h("dt", {}, "place in the log"), h("dd", {}, `partition ${place.partition}, offset ${place.offset}`)),
      Object.entries(found.headers ?? {}).map(([name, value]) =>
        h("div", {}, h("dt", {}, name), h("dd", {}, decoded(value) ?? value)),
      ),
    ),
  ];
}
