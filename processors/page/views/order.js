// Shows one order as it is now, or as it was after any of its deliveries. The view also shows the
// order's deliveries, and offers a file that proves the order's state. While the view is open, it
// shows each change of the order.

import { get, pathOf, request } from "../api.js";
import { h, refill, replace, say, table } from "../dom.js";
import { amount, eventTime, money, time } from "../format.js";
import { DISPUTES, STATUSES } from "../words.js";
import { timeline } from "./deliveries.js";
import { anomalyNotes, beginning, facts, heading, idLink, idText, several, status, totalsTable } from "./parts.js";

const LOOK_EVERY_MS = 2_000;
// A state is loaded only once the slider has rested on it for this long.
const REST_MS = 150;
// A duplicate delivery changes neither the order nor the order's entity tag. To find duplicates,
// every third look also reads the log.
const LOOK_AT_LOG_EVERY = 3;
// If an order has more payments than this, the others are shown only on request.
const MOST_PAYMENTS = 20;

export async function order(place, { id, signal }) {
  replace(place, heading("Order", id), h("p", { class: "quiet" }, "Reading the order…"));
  const seen = await look(id, signal);
  const page = new OrderPage(id, signal, seen);
  replace(place, page.elements());
  page.follow();
}

async function look(id, signal) {
  const { body: document, tag } = await get(pathOf("orders", id), { signal });
  return { document, tag, ...(await deliveriesOf(id, signal)) };
}

async function deliveriesOf(id, signal) {
  try {
    const { body } = await get(pathOf("orders", id, "/events"), { signal });
    return { deliveries: body.deliveries, problem: null };
  } catch (error) {
    if (error.name === "AbortError" || error.status === 401) throw error;
    // The order's state is shown even if its deliveries can't be read, or are too many.
    return { deliveries: [], problem: error };
  }
}

class OrderPage {
  constructor(id, signal, { document, tag, deliveries, problem }) {
    Object.assign(this, { id, signal, document, tag, deliveries, problem });
    this.timeline = timeline();
    this.state = h("div", { class: "state" });
    this.count = h("p", { class: "quiet" });
    this.slider = h("input", {
      type: "range",
      id: "as-of",
      min: 1,
      step: 1,
      oninput: () => this.showAsOf(),
    });
    this.asOf = h("output", { for: "as-of" });
    this.now = h("button", { type: "button", class: "quiet", onclick: () => this.toNow() }, "Now");
    this.proofWord = h("p", { class: "quiet", role: "status" });
    this.staleWord = h("p", { class: "live stale", hidden: true });
    this.section = h(
      "section",
      { class: "as-of", "aria-label": "As of" },
      h("label", { for: "as-of" }, "As of"),
      this.slider,
      this.now,
      this.asOf,
    );
    this.opened = new Set();
    this.wanted = 0;
    this.seenAt = Date.now();
    this.showDeliveries();
    this.toNow();
  }

  elements() {
    return [
      h(
        "div",
        { class: "title" },
        heading("Order", this.id),
        h("button", { type: "button", onclick: () => this.download() }, "Download proof"),
      ),
      this.staleWord,
      this.proofWord,
      this.section,
      this.state,
      h("section", {}, h("h2", {}, "Deliveries"), this.count, this.timeline.element),
    ];
  }

  /** The distinct times at which deliveries arrived. */
  get times() {
    return [...new Set(this.deliveries.map((each) => each.received_at_ms))];
  }

  showDeliveries() {
    const dropped = this.deliveries.filter((each) => each.outcome !== "folded").length;
    this.timeline.update(this.deliveries);
    this.slider.max = String(this.times.length);
    // If all deliveries arrived at the same time, the only state is the current state.
    this.section.hidden = this.times.length < 2;
    if (this.problem) {
      replace(this.count, `The deliveries can't be shown now: ${this.problem.message}`);
      return;
    }
    const count = several(this.deliveries.length, "delivery", "deliveries");
    replace(this.count, `${count}, sorted by arrival; ${dropped ? `${dropped} not counted` : "all counted"}.`);
  }

  toNow() {
    this.slider.value = this.slider.max;
    this.showAsOf();
  }

  get isNow() {
    return this.slider.value === this.slider.max;
  }

  async showAsOf() {
    const asking = ++this.wanted;
    const at = this.times[Number(this.slider.value) - 1] ?? 0;
    const by = this.deliveries.filter((each) => each.received_at_ms <= at).length;
    const text = this.isNow ? "now" : `after ${by} of ${this.deliveries.length} deliveries`;
    this.slider.setAttribute("aria-valuetext", text);
    this.now.disabled = this.isNow;
    this.timeline.mark(this.isNow ? null : at);
    replace(this.asOf, this.isNow ? "With all deliveries so far" : [time(at), `, ${text}`]);
    if (this.isNow) return refill(this.state, this.document, this.stateOf(this.document));
    await new Promise((resolve) => setTimeout(resolve, REST_MS));
    if (asking !== this.wanted) return null;
    const as_of = new Date(at).toISOString();
    let shown;
    try {
      const { body } = await get(pathOf("orders", this.id, "", { as_of }), { signal: this.signal });
      shown = [body, this.stateOf(body)];
    } catch (error) {
      if (error.name === "AbortError") return null;
      const text = error.status === 404 ? "The order did not exist yet." : error.message;
      shown = [text, h("p", { class: "quiet" }, text)];
    }
    // The reader may have moved the slider again meanwhile.
    return asking === this.wanted ? refill(this.state, ...shown) : null;
  }

  async follow() {
    for (let looks = 1; !this.signal.aborted; looks += 1) {
      await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS));
      if (this.signal.aborted || globalThis.document.hidden) continue;
      try {
        await this.lookAgain(looks % LOOK_AT_LOG_EVERY === 0);
        this.seenAt = Date.now();
        this.staleWord.hidden = true;
      } catch (error) {
        if (this.signal.aborted) return;
        // The next attempt follows in a moment. Until it succeeds, the page shows the former state.
        if (this.staleWord.hidden) {
          replace(this.staleWord, "Stale since ", time(this.seenAt), `: ${error.message}`);
          this.staleWord.hidden = false;
          say(this.staleWord.textContent);
        }
        if (error.status === 401) return;
      }
    }
  }

  async lookAgain(alsoAtLog) {
    const { body, tag } = await get(pathOf("orders", this.id), { signal: this.signal });
    if (tag === this.tag && !alsoAtLog) return;
    const read = await deliveriesOf(this.id, this.signal);
    const isNews = tag !== this.tag;
    const wasNow = this.isNow;
    const at = Number(this.slider.value);
    Object.assign(this, { document: body, tag, ...read });
    this.showDeliveries();
    if (wasNow) this.toNow();
    else this.slider.value = String(at);
    if (isNews) say(`The order changed: ${STATUSES[body.status] ?? body.status}`);
  }

  async download() {
    replace(this.proofWord, "Reading the log…");
    try {
      const answer = await request(pathOf("orders", this.id, "/proof"), { signal: this.signal });
      if (!answer.ok) throw new Error((await answer.json()).detail);
      const address = URL.createObjectURL(await answer.blob());
      // Each order's file has its own name, because an auditor may save several files.
      const name = `proof-${this.id.replace(/[^\w.-]+/g, "_").slice(0, 80)}.json`;
      h("a", { href: address, download: name }).click();
      setTimeout(() => URL.revokeObjectURL(address), 60_000);
      replace(this.proofWord, "Saved. Check it anywhere: ", h("code", {}, `plexy-ledger prove ${name}`));
    } catch (error) {
      if (error.name !== "AbortError") replace(this.proofWord, error.message);
    }
  }

  stateOf(document) {
    return [
      h("p", { class: "headline" }, status(document.status), " ", headline(document)),
      document.anomalies.length > 0 &&
        h("section", { class: "warning" }, h("h2", {}, "Anomalies"), anomalyNotes(document.anomalies)),
      h("section", {}, h("h2", {}, "Totals"), totalsTable(document.totals, "Totals by currency")),
      facts([
        ["Based on", several(document.version, "fact")],
        ["First event", eventTime(document.first_event)],
        ["Last event", eventTime(document.last_event)],
      ]),
      document.summary &&
        h(
          "p",
          { class: "quiet" },
          `The order has ${several(document.summary.payments, "payment")}; `,
          "this page shows the payment with the first event and the payment with the last event.",
        ),
      h("section", {}, h("h2", {}, "Payments"), beginning(document.payments, MOST_PAYMENTS, paymentOf, "payment", this.opened)),
    ];
  }
}

function headline({ totals }) {
  return Object.entries(totals)
    .map(([currency, { net }]) => money(net, currency))
    .join(" + ");
}

function paymentOf(payment) {
  const { currency } = payment;
  return h(
    "article",
    { class: "payment" },
    h("h3", {}, idLink("payments", payment.payment_id), " ", status(payment.status)),
    payment.amount === null
      ? h("p", { class: "quiet" }, "Nothing was paid.")
      : h("p", { class: "sum" }, money(payment.amount, currency), " paid ", eventTime(payment.created)),
    ...partsOf(payment),
  );
}

/** The captures, refunds and disputes of a payment, each kind as a table. */
export function partsOf({ captures = [], refunds, disputes = [] }) {
  return [
    captures.length > 0 && partTable("Captures", "Capture", captures, (each) => each.capture_id),
    refunds.length > 0 && partTable("Refunds", "Refund", refunds, (each) => each.refund_id),
    disputes.length > 0 && partTable("Disputes", "Dispute", disputes, (each) => each.dispute_id),
  ];
}

function partTable(title, kind, parts, idOf) {
  return table(
    title,
    [kind, "Amount", "Currency", "Occurred", "Event"],
    parts.map((part) => [
      [h("span", { class: "id" }, idText(idOf(part))), part.status ? ` ${DISPUTES[part.status]}` : ""],
      part.amount === null ? "unknown" : amount(part.amount, part.currency),
      part.currency ?? "",
      eventTime(part.created),
      idLink("events", part.event_id),
    ]),
    [1],
  );
}
