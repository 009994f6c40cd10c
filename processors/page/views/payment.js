// Shows one payment: its amount, its captures, refunds and disputes, and its order.

import { get, pathOf } from "../api.js";
import { h, replace } from "../dom.js";
import { eventTime, money } from "../format.js";
import { timeline } from "./deliveries.js";
import { partsOf } from "./order.js";
import { anomalyNotes, facts, heading, idLink, several, status } from "./parts.js";

export async function payment(place, { id, signal }) {
  replace(place, heading("Payment", id), h("p", { class: "quiet" }, "Reading the payment…"));
  const { body } = await get(pathOf("payments", id), { signal });
  const shown = timeline();
  const said = h("p", { class: "quiet" });
  try {
    shown.update((await get(pathOf("payments", id, "/events"), { signal })).body.deliveries);
  } catch (error) {
    if (error.name === "AbortError" || error.status === 401) throw error;
    // The payment's state is shown even if its deliveries can't be read, or are too many.
    replace(said, `The deliveries can't be shown now: ${error.message}`);
  }
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
      ["Based on", several(body.version, "fact")],
    ]),
    body.anomalies.length > 0 &&
      h("section", { class: "warning" }, h("h2", {}, "Anomalies"), anomalyNotes(body.anomalies)),
    h("section", {}, h("h2", {}, "Captures, refunds and disputes"), ...partsOf(body)),
    h("section", {}, h("h2", {}, "Deliveries"), said, shown.element),
  );
}
