// How the ledger is, each second: how much arrives, how far it is folded, what is in it, what needs
// a look, and who works.

import { get } from "../api.js";
import { bars, sparkline } from "../chart.js";
import { h, refill, replace, table } from "../dom.js";
import { amount, compact, duration, integer, money, time } from "../format.js";
import { follow } from "../live.js";
import { link } from "../router.js";
import { ANOMALIES, HOPS, OUTCOMES, REASONS } from "../words.js";
import { listed } from "./orders.js";
import { several, totalsTable } from "./parts.js";

const SECONDS = 120;
const AGAIN_MS = 5_000;
const DAY_MS = 86_400_000;
const LATEST = 5;

export async function overview(place, { signal }) {
  const parts = Object.fromEntries(
    ["state", "rate", "lag", "ready", "totals", "outcomes", "types", "rejected", "anomalies", "workers"].map(
      (name) => [name, h("div", { class: `part ${name}` })],
    ),
  );
  const days = new Days(signal);
  const latest = new Latest(signal);
  replace(place, layout(parts, days, latest));
  let lastAt = null;
  await follow(
    signal,
    (document) => {
      lastAt = document.at_ms;
      show(parts, document);
      days.look(document.totals);
      latest.look(document.anomalies);
    },
    (state, error) => showState(parts.state, state, lastAt, error),
  );
}

function layout(parts, days, latest) {
  const section = (title, ...content) => h("section", { class: "card" }, h("h2", {}, title), content);
  const wide = (title, ...content) => h("section", { class: "card wide" }, h("h2", {}, title), content);
  return [
    h("div", { class: "title" }, h("h1", {}, "Overview"), parts.state),
    h(
      "div",
      { class: "grid" },
      section("Deliveries per second", parts.rate),
      section("Not folded yet", parts.lag),
      section("Readiness", parts.ready),
      wide("Totals", parts.totals, days.element),
      section("By outcome", parts.outcomes),
      section("By type", parts.types),
      section("Rejected", parts.rejected),
      wide("Orders with anomalies", parts.anomalies, latest.element),
      wide("Workers", parts.workers),
    ),
  ];
}

function showState(element, state, lastAt, error) {
  const isLive = state === "live";
  if (isLive && element.dataset.state === "live") return;
  element.dataset.state = state;
  const since = lastAt === null ? "Not connected" : ["Stale since ", time(lastAt)];
  replace(
    element,
    h(
      "p",
      { class: `live ${state}`, role: "status" },
      isLive ? "Live" : [since, ": connecting again.", error?.message ? ` ${error.message}` : ""],
    ),
  );
}

function show(parts, document) {
  const rates = document.per_second;
  const now = rates.at(-1) ?? 0;
  const most = Math.max(0, ...rates);
  const told = `${integer(now)} per second now, at most ${integer(most)} in the last two minutes`;
  refill(
    parts.rate,
    rates,
    h("p", { class: "figure" }, integer(now)),
    sparkline(rates, SECONDS, told),
    h("p", { class: "quiet" }, `At most ${integer(most)} in the last two minutes`),
  );
  refill(
    parts.lag,
    document.lag,
    h(
      "dl",
      { class: "figures" },
      Object.entries(HOPS).map(([hop, name]) =>
        h("div", {}, h("dt", {}, name), h("dd", {}, hop in document.lag ? integer(document.lag[hop]) : "—")),
      ),
    ),
    h("p", { class: "quiet" }, "Records that each step still has before it"),
  );
  refill(parts.ready, [document.ready, document.missing, document.workers.length], readiness(document));
  showTotals(parts.totals, document.totals);
  countTable(parts.outcomes, "Deliveries by outcome", "Outcome", document.outcomes, (name) => OUTCOMES[name]?.title ?? name);
  countTable(parts.types, "Events by type", "Type", document.types, (name) => name);
  countTable(parts.rejected, "Rejected by reason", "Reason", document.rejected, (name) =>
    h("a", { href: link(["quarantine"], { reason: name }), title: REASONS[name] }, name),
  );
  showAnomalies(parts.anomalies, document.anomalies);
  const rows = workerRows(document);
  refill(parts.workers, rows, workersTable(rows));
}

function readiness(document) {
  return [
    h("p", { class: `figure ${document.ready ? "good" : "bad"}` }, document.ready ? "Ready" : "Not ready"),
    h(
      "p",
      { class: "quiet" },
      document.ready
        ? `${several(document.workers.length, "worker")}, every partition is folded`
        : `No ready worker has partition ${document.missing.join(", ")}`,
    ),
  ];
}

function showTotals(element, totals) {
  const told = (text) => refill(element, text, h("p", { class: "quiet" }, text));
  if (totals === null) told("The workers are summing up…");
  else if (!Object.keys(totals).length) told("Nothing was paid yet.");
  else refill(element, totals, totalsTable(totals, "Totals by currency"));
}

function countTable(element, caption, kind, counts, name) {
  const rows = Object.entries(counts).sort(([, one], [, other]) => other - one);
  refill(
    element,
    rows,
    rows.length
      ? table(caption, [kind, "Count"], rows.map(([key, count]) => [name(key), integer(count)]), [1])
      : h("p", { class: "quiet" }, "None"),
    h("p", { class: "quiet" }, "Since the workers were started"),
  );
}

function showAnomalies(element, counts) {
  if (counts === null) {
    refill(element, null, h("p", { class: "quiet" }, "The workers are counting…"));
    return;
  }
  const { any = 0, ...names } = counts;
  refill(
    element,
    counts,
    h("p", { class: `figure ${any ? "bad" : "good"}` }, integer(any)),
    Object.keys(names).length > 0 &&
      table(
        "Orders by anomaly",
        ["Anomaly", "Orders"],
        Object.entries(names).map(([anomaly, count]) => [
          h("a", { href: link(["anomalies"], { anomaly }) }, ANOMALIES[anomaly]?.title ?? anomaly),
          integer(count),
        ]),
        [1],
      ),
  );
}

function workerRows(document) {
  return document.workers.map((worker) => [
    worker.address,
    worker.ready ? "ready" : `not ready: ${worker.reason}`,
    worker.partitions.join(", ") || "none",
    worker.standbys.join(", ") || "none",
    worker.since_ms === null ? "—" : duration(document.at_ms - worker.since_ms),
  ]);
}

function workersTable(rows) {
  return table(
    "Workers and their partitions",
    ["Worker", "State", "Folds", "Copies", "Up for"],
    rows.map(([address, ...rest]) => [h("code", {}, address), ...rest]),
  );
}

/** Something that is asked for again when a part of the live document changed, and not too often. */
class Changing {
  constructor(signal) {
    this.signal = signal;
    this.element = h("div");
    this.seen = "";
    this.askedAt = 0;
  }

  async look(value) {
    const text = JSON.stringify(value, (_key, each) => (typeof each === "bigint" ? `${each}` : each));
    if (value === null || text === this.seen || Date.now() - this.askedAt < AGAIN_MS) return;
    this.askedAt = Date.now();
    try {
      await this.ask();
      this.seen = text;
    } catch (error) {
      if (error.name !== "AbortError") replace(this.element, h("p", { class: "quiet" }, error.message));
    }
  }
}

/** The latest orders with anomalies. */
class Latest extends Changing {
  async ask() {
    const { body } = await get(`/orders?anomaly=any&limit=${LATEST}`, { signal: this.signal });
    replace(
      this.element,
      body.orders.length > 0 && [
        h("h3", {}, "The latest"),
        h("ul", { class: "list" }, body.orders.map(listed)),
        h("p", {}, h("a", { href: link(["anomalies"]) }, "All orders with anomalies")),
      ],
    );
  }
}

/** What was paid and refunded by day, as a drawing and as a table. */
class Days extends Changing {
  constructor(signal) {
    super(signal);
    this.currency = null;
    this.range = 30;
    this.posted = new Map();
    addEventListener("resize", () => this.posted.size && this.draw(), { signal });
  }

  async ask() {
    const { body } = await get("/balances?days=true", { signal: this.signal });
    this.posted = byCurrency(body.days);
    this.draw();
  }

  draw() {
    const currencies = [...this.posted.keys()].sort();
    if (!currencies.length) return replace(this.element);
    // At first the one with the most days.
    const size = (name) => this.posted.get(name).size;
    if (!this.posted.has(this.currency)) [this.currency] = currencies.toSorted((a, b) => size(b) - size(a));
    const { currency } = this;
    const days = lastDays(this.posted.get(currency), this.range, currency);
    const told = `${currency} by day, from ${days[0].day} to ${days.at(-1).day}: paid, refunded and net`;
    return replace(
      this.element,
      h(
        "div",
        { class: "filters" },
        this.choice("currency", "Currency", currencies.map((name) => [name, name]), (value) => value),
        this.choice("range", "Days", [["30", "30"], ["90", "90"], ["365", "365"]], Number),
      ),
      h(
        "figure",
        {},
        bars(days, told, (tick) => compact(tick, currency), this.width),
        h(
          "figcaption",
          { class: "legend" },
          h("span", { class: "key paid" }, "Paid"),
          h("span", { class: "key refunded" }, "Refunded"),
          h("span", { class: "key net" }, "Net"),
          h("span", { class: "quiet" }, "by the day of the event, in UTC"),
        ),
      ),
      h(
        "details",
        {},
        h("summary", {}, "As a table"),
        table(
          told,
          ["Day", "Paid", "Refunded", "Net"],
          days
            .filter((day) => day.paid || day.refunded || day.net)
            .reverse()
            .map((day) => [day.day, ...[day.paid, day.refunded, day.net].map((each) => amount(each, currency))]),
          [1, 2, 3],
        ),
      ),
    );
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
          document.getElementById(`days-${name}`).focus();
        },
      },
      choices.map(([value, text]) => h("option", { value, selected: value === String(this[name]) }, text)),
    );
    return h("p", { class: "filter" }, h("label", { for: `days-${name}` }, label), select);
  }
}

const COLUMNS = { "income:sales": ["paid", -1n], "income:refunds": ["refunded", 1n], "assets:plexy": ["net", 1n] };

function byCurrency(posted) {
  const found = new Map();
  for (const { account, currency, day, amount: minor } of posted) {
    if (!Object.hasOwn(COLUMNS, account)) continue;
    const [column, sign] = COLUMNS[account];
    if (!found.has(currency)) found.set(currency, new Map());
    const days = found.get(currency);
    if (!days.has(day)) days.set(day, { paid: 0n, refunded: 0n, net: 0n });
    // Income is credited, and a credit is negative.
    days.get(day)[column] += sign * BigInt(minor);
  }
  return found;
}

/** Return the last days up to the latest one with anything posted, those without it too. */
function lastDays(days, range, currency) {
  const posted = [...days.keys()].sort();
  // One event with a time far ahead must not hide all the others.
  const tomorrow = new Date(Date.now() + DAY_MS).toISOString().slice(0, 10);
  const last = Date.parse(posted.findLast((day) => day <= tomorrow) ?? posted[0]);
  const format = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", timeZone: "UTC" });
  return Array.from({ length: range }, (_, index) => {
    const at = last - (range - 1 - index) * DAY_MS;
    const day = new Date(at).toISOString().slice(0, 10);
    const sums = days.get(day) ?? { paid: 0n, refunded: 0n, net: 0n };
    const title = `${day}: ${money(sums.paid, currency)} paid, ${money(sums.refunded, currency)} refunded, ${money(sums.net, currency)} net`;
    return { day, label: format.format(at), title, ...sums };
  });
}
