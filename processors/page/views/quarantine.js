// Lists the records that are kept but not counted, each with its reason; the newest is first.

import { get } from "../api.js";
import { h, replace, table } from "../dom.js";
import { integer, time } from "../format.js";
import { link } from "../router.js";
import { REASONS } from "../words.js";
import { filter, idLink, pager } from "./parts.js";

const PARTS = ["quarantine"];
const STATES = [["", "All"], ["open", "Open"], ["put_back", "Put back"], ["corrected", "Corrected"]];

export async function quarantine(place, { query, signal }) {
  const reasons = Object.keys(REASONS).map((name) => [name, name]);
  const above = [
    h("h1", {}, "Quarantine"),
    h(
      "p",
      {},
      "Rejected deliveries are kept, but not counted. After a fix, ",
      h("code", {}, "plexy-ledger rejected retry"),
      " puts back the good deliveries. A reused id stays here: its first event counts.",
    ),
    h(
      "div",
      { class: "filters" },
      filter("State", PARTS, query, "state", STATES),
      filter("Reason", PARTS, query, "reason", [["", "All"], ...reasons]),
    ),
  ];
  replace(place, above, h("p", { class: "quiet" }, "Reading the quarantine…"));
  const given = ["state", "reason", "cursor"].filter((name) => query[name]);
  const search = new URLSearchParams(given.map((name) => [name, query[name]]));
  const { body } = await get(`/rejected?${search}`, { signal });
  const counts = Object.entries(body.counts);
  replace(
    place,
    above,
    counts.length > 0 &&
      h(
        "details",
        { class: "counts" },
        h("summary", {}, `Open by reason: ${integer(counts.reduce((sum, [, n]) => sum + n, 0))} in all`),
        table(
          "Open items by reason",
          ["Reason", "Meaning", "Open"],
          counts.map(([reason, count]) => [reasonLink(reason), REASONS[reason]?.means ?? "", integer(count)]),
          [2],
        ),
      ),
    body.items.length
      ? h("ul", { class: "list" }, body.items.map(item))
      : h("p", { class: "empty" }, none(query)),
    pager(PARTS, query, body.cursor),
  );
}

function none({ state, reason, cursor }) {
  if (state || reason || cursor) return "No delivery matches these filters.";
  return "No delivery was rejected.";
}

function reasonLink(reason) {
  return h("a", { href: link(PARTS, { reason }) }, reason);
}

function item(each) {
  const times = each.times ?? 1;
  return h(
    "li",
    {},
    h(
      "p",
      { class: "first" },
      idLink("events", each.event_id),
      " ",
      h("span", { class: "badge outcome-rejected" }, each.reason),
      each.state !== "open" && h("span", { class: "badge" }, each.state === "corrected" ? "Corrected" : "Put back"),
    ),
    h("p", {}, REASONS[each.reason]?.means ?? each.reason),
    each.state === "open" &&
      h("p", { class: "quiet" }, h("strong", {}, "What to do: "), REASONS[each.reason]?.todo),
    each.detail && h("p", { class: "quiet" }, each.detail),
    h(
      "p",
      { class: "quiet" },
      time(each.rejected_at_ms),
      each.source === "http" ? " · refused by ingress" : ` · ${each.source}`,
      times > 1 && ` · arrived ${integer(times)} times`,
      each.unkept && ` · ${integer(each.unkept.size_bytes)} bytes, kept only at the source`,
      each.put_back_at_ms && [each.state === "corrected" ? " · corrected " : " · put back ", time(each.put_back_at_ms)],
    ),
  );
}
