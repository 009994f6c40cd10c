// Shows the state of the ledger each second: arriving events, the progress of the fold, the totals,
// the cases that need attention, and the workers.

import { sparkline } from "../chart.js";
import { h, refill, replace, table } from "../dom.js";
import { duration, integer, time } from "../format.js";
import { follow } from "../live.js";
import { link } from "../router.js";
import { ANOMALIES, HOPS, OUTCOMES, REASONS } from "../words.js";
import { Days, Latest } from "./changing.js";
import { several, totalsTable } from "./parts.js";

const SECONDS = 120;

export async function overview(place, { signal }) {
  const parts = Object.fromEntries(
    ["state", "rate", "lag", "ready", "totals", "outcomes", "types", "rejected", "anomalies", "workers"].map(
      (name) => [name, h("div", { class: `part ${name}` })],
    ),
  );
  // The element exists before it has a text, so that screen readers announce the text.
  parts.state.setAttribute("role", "status");
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
    (state, problem) => {
      // If the data is stale, the page still shows the former values, which may be out of date.
      place.classList.toggle("stale", state === "stale");
      if (state === "stale") refill(parts.ready, state, unknown());
      showState(parts.state, state, lastAt, problem);
    },
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

function unknown() {
  return [h("p", { class: "figure" }, "Unknown"), h("p", { class: "quiet" }, "The worker is silent")];
}

function showState(element, state, lastAt, problem) {
  const isLive = state === "live";
  if (isLive && element.dataset.state === "live") return;
  element.dataset.state = state;
  const since = lastAt === null ? "Not connected" : ["Stale since ", time(lastAt)];
  replace(
    element,
    h(
      "p",
      { class: `live ${state}` },
      isLive ? "Live" : [since, ": connecting again.", problem && ` ${problem}`],
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
    h("p", { class: "quiet" }, "Records that each step has not processed yet"),
  );
  refill(parts.ready, [document.ready, document.missing, document.workers.length], readiness(document));
  showTotals(parts.totals, document.totals);
  countTable(parts.outcomes, "Deliveries by outcome", "Outcome", document.outcomes, (name) => OUTCOMES[name]?.title ?? name);
  countTable(parts.types, "Events by type", "Type", document.types, (name) => name);
  countTable(parts.rejected, "Rejected by reason", "Reason", document.rejected, (name) =>
    h("a", { href: link(["quarantine"], { reason: name }), title: REASONS[name]?.means }, name),
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
  if (totals === null) told("The workers are computing the totals…");
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
