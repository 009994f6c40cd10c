// Shows one payment: its amount, its captures, refunds and disputes, and its order.

import { get, pathOf } from "../api.js";
import { h, replace, table } from "../dom.js";
import { eventTime, money } from "../format.js";
import { partsOf } from "./order.js";
import { anomalyNotes, facts, heading, idLink, several, status } from "./parts.js";

export async function payment(place, { id, signal }) {
  replace(place, heading("Payment", id), h("p", { class: "quiet" }, "Reading the payment…"));
  const { body } = await get(pathOf("payments", id), { signal });
  replace(
    place,
    heading("Payment", id),
    h(
      "p",
      { class: "headline" },
      status(body.status),
      " ",
      body.amount === null ? "Nothing was paid" : money(body.amount, body.currency),
    ),
    facts([
      ["Order", idLink("orders", body.order_id)],
      ["Occurred", eventTime(body.created)],
      ["Rests on", several(body.version, "fact")],
    ]),
    body.anomalies.length > 0 &&
      h("section", { class: "warning" }, h("h2", {}, "Does not fit together"), anomalyNotes(body.anomalies)),
    h("section", {}, h("h2", {}, "Captures, refunds and disputes"), ...partsOf(body)),
    h(
      "section",
      {},
      h("h2", {}, "Events"),
      table(
        "Events of the payment",
        ["Event", "Type", "Occurred"],
        body.events.map((each) => [idLink("events", each.event_id), each.type, eventTime(each.created)]),
      ),
    ),
  );
}
