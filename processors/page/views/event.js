// Shows one event: its outcome, and all of its deliveries.

import { get, pathOf } from "../api.js";
import { h, replace } from "../dom.js";
import { outcome } from "../words.js";
import { timeline } from "./deliveries.js";
import { facts, heading, idLink, outcomeBadge, several } from "./parts.js";

export async function event(place, { id, signal }) {
  replace(place, heading("Event", id), h("p", { class: "quiet" }, "Reading the log…"));
  const { body } = await get(pathOf("events", id), { signal });
  const deliveries = timeline();
  deliveries.update(body.deliveries);
  replace(
    place,
    heading("Event", id),
    h("p", { class: "headline" }, outcomeBadge(body.outcome)),
    h("p", {}, outcome(body.outcome).means),
    body.detail && h("p", { class: "why" }, body.detail),
    facts([
      body.order_id && ["Order", idLink("orders", body.order_id)],
      body.payment_id && ["Payment", idLink("payments", body.payment_id)],
    ]),
    h(
      "section",
      {},
      h("h2", {}, "Deliveries"),
      h(
        "p",
        { class: "quiet" },
        body.deliveries.length
          ? `The event was delivered ${several(body.deliveries.length, "time")}.`
          : "The log has no delivery of this event: ingress refused it.",
      ),
      deliveries.element,
    ),
  );
}
