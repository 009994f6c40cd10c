// Shows the parts of the overview that are not in the live document: a drawing of the totals by
// day, and the latest orders with anomalies. After the live document changes, these parts are
// loaded again.

import { get } from "../api.js";
import { bars } from "../chart.js";
import { fingerprint, h, refill, replace, table } from "../dom.js";
import { amount, compact, money } from "../format.js";
import { link } from "../router.js";
import { listed } from "./orders.js";

const AGAIN_MS = 5_000;
const DAY_MS = 86_400_000;
const LATEST = 5;

/** A value that is loaded again, not too often, after a part of the live document has changed. */
class Changing {
  constructor(signal) {
    this.signal = signal;
    this.content = h("div");
    this.problem = h("p", { class: "quiet" });
    this.element = h("div", {}, this.content, this.problem);
    this.seen = "";
    this.askedAt = 0;
  }

  async look(value) {
    const text = fingerprint(value);
    if (value === null || text === this.seen || Date.now() - this.askedAt < AGAIN_MS) return;
    this.askedAt = Date.now();
    try {
      await this.ask();
      this.seen = text;
      replace(this.problem);
    } catch (error) {
      if (error.name !== "AbortError") replace(this.problem, error.message);
    }
  }
}

/** The latest orders with anomalies. */
export class Latest extends Changing {
  async ask() {
    const { body } = await get(`/orders?anomaly=any&limit=${LATEST}`, { signal: this.signal });
    refill(
      this.content,
      body,
      body.orders.length > 0 && [
        h("h3", {}, "The latest"),
        h("ul", { class: "list" }, body.orders.map(listed)),
        h("p", {}, h("a", { href: link(["anomalies"]) }, "All orders with anomalies")),
      ],
    );
  }
}

/** Paid and refunded amounts by day, as a drawing and as a table; the reader's choices are kept. */
export class Days extends Changing {
  constructor(signal) {
    super(signal);
    this.currency = null;
    this.range = 30;
    this.posted = new Map();
    this.choices = h("div", { class: "filters" });
    this.figure = h("figure");
    this.sums = h("p");
    this.table = h("div");
    addEventListener("resize", () => this.posted.size && this.draw(), { signal });
  }

  async ask() {
    const { body } = await get("/balances?days=true", { signal: this.signal });
    this.posted = byCurrency(body.days);
    if (this.posted.size) this.draw();
  }

  draw() {
    if (!this.content.hasChildNodes()) {
      const details = h("details", {}, h("summary", {}, "As a table"), this.table);
      replace(this.content, this.choices, this.figure, this.sums, details);
    }
    const currencies = [...this.posted.keys()].sort();
    // Until the reader chooses a currency, the currency with the most days is shown.
    const size = (name) => this.posted.get(name).size;
    if (!this.posted.has(this.currency)) [this.currency] = currencies.toSorted((a, b) => size(b) - size(a));
    const { currency } = this;
    const days = lastDays(this.posted.get(currency), this.range, currency);
    const told = `${currency} by day, from ${days[0].day} to ${days.at(-1).day}: paid, refunded and net`;
    refill(
      this.choices,
      currencies,
      this.choice("currency", "Currency", currencies.map((name) => [name, name]), (value) => value),
      this.choice("range", "Days", [["30", "30"], ["90", "90"], ["365", "365"]], Number),
    );
    replace(this.figure, bars(days, told, (tick) => compact(tick, currency), this.width), LEGEND.cloneNode(true));
    replace(this.sums, `In these ${this.range} days: ${inWords(summed(days), currency)}.`);
    refill(this.table, days, daysTable(days, told, currency));
  }

  get width() {
    return Math.max(this.element.clientWidth, 280);
  }

  choice(name, label, choices, read) {
    const select = h(
      "select",
      {
        id: `days-${name}`,
        onchange: () => {
          this[name] = read(select.value);
          this.draw();
        },
      },
      choices.map(([value, text]) => h("option", { value, selected: value === String(this[name]) }, text)),
    );
    return h("p", { class: "filter" }, h("label", { for: `days-${name}` }, label), select);
  }
}

const LEGEND = h(
  "figcaption",
  { class: "legend" },
  h("span", { class: "key paid" }, "Paid"),
  h("span", { class: "key refunded" }, "Refunded"),
  h("span", { class: "key net" }, "Net"),
  h("span", { class: "quiet" }, "by the day of the event, in UTC"),
);

function daysTable(days, caption, currency) {
  const posted = days.filter((day) => day.paid || day.refunded || day.net).reverse();
  const cells = (day) => [day.paid, day.refunded, day.net].map((each) => amount(each, currency));
  return table(caption, ["Day", "Paid", "Refunded", "Net"], posted.map((day) => [day.day, ...cells(day)]), [1, 2, 3]);
}

function inWords(sums, currency) {
  return Object.keys(NOTHING).map((name) => `${money(sums[name], currency)} ${name}`).join(", ");
}

function summed(days) {
  const sums = { ...NOTHING };
  for (const day of days) for (const name of Object.keys(sums)) sums[name] += day[name];
  return sums;
}

const NOTHING = { paid: 0n, refunded: 0n, net: 0n };
const COLUMNS = { "income:sales": ["paid", -1n], "income:refunds": ["refunded", 1n], "assets:plexy": ["net", 1n] };

function byCurrency(posted) {
  const found = new Map();
  for (const { account, currency, day, amount: minor } of posted) {
    if (!Object.hasOwn(COLUMNS, account)) continue;
    const [column, sign] = COLUMNS[account];
    if (!found.has(currency)) found.set(currency, new Map());
    const days = found.get(currency);
    if (!days.has(day)) days.set(day, { ...NOTHING });
    // Income is credited, and a credit is negative.
    days.get(day)[column] += sign * BigInt(minor);
  }
  return found;
}

/** Return the last `range` days up to the latest day with postings; other days may have none. */
function lastDays(days, range, currency) {
  const posted = [...days.keys()].sort();
  // One event with a time far in the future must not hide all other events.
  const tomorrow = new Date(Date.now() + DAY_MS).toISOString().slice(0, 10);
  const last = Date.parse(posted.findLast((day) => day <= tomorrow) ?? posted[0]);
  const format = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", timeZone: "UTC" });
  return Array.from({ length: range }, (_, index) => {
    const at = last - (range - 1 - index) * DAY_MS;
    const day = new Date(at).toISOString().slice(0, 10);
    const sums = days.get(day) ?? NOTHING;
    return { day, label: format.format(at), title: `${day}: ${inWords(sums, currency)}`, ...sums };
  });
}
