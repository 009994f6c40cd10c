// Makes the parts that several views share: statuses, totals, anomalies with their explanations,
// and links to ids.

import { h, table } from "../dom.js";
import { amount, integer } from "../format.js";
import { link } from "../router.js";
import { ANOMALIES, STATUSES, outcome } from "../words.js";

// Characters of an external id that are invisible, or that change the direction of the text.
const UNSEEN = /([\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs})/u;

/** An id's text without hidden characters: U+202E is shown as \u{202e}. */
export function idText(id) {
  return id.split(UNSEEN).map((part, index) => {
    if (index % 2 === 0) return part;
    const code = part.codePointAt(0).toString(16);
    return h("span", { class: "escaped", title: `U+${code.toUpperCase().padStart(4, "0")}` }, `\\u{${code}}`);
  });
}

/** An id as a link to its page. */
export function idLink(kind, id) {
  return h("a", { class: "id", href: link([kind, id]) }, idText(id));
}

/**
 * The first items of a list, and a button that shows the other items. `opened` has the names of the
 * lists that the reader has opened; all items of these lists are shown.
 */
export function beginning(things, most, made, name, opened) {
  if (things.length <= most || opened.has(name)) return things.map(made);
  const others = things.slice(most);
  const showOthers = () => {
    opened.add(name);
    const added = others.map(made);
    button.replaceWith(...added);
    added[0].querySelector("a")?.focus();
  };
  const button = h("button", { type: "button", class: "quiet", onclick: showOthers }, `Show ${several(others.length, `more ${name}`)}`);
  return [...things.slice(0, most).map(made), button];
}

/** A view's title, with the kind of object and its id. */
export function heading(kind, id) {
  return h("h1", {}, h("span", { class: "kind" }, kind), " ", h("span", { class: "id" }, idText(id)));
}

/** A status as a word with a coloured mark. */
export function status(name) {
  return h("span", { class: `badge ${name}` }, STATUSES[name] ?? name);
}

/** The outcome of a delivery. */
export function outcomeBadge(name) {
  const { title, means } = outcome(name);
  return h("span", { class: `badge outcome-${name in { accepted: 1, folded: 1, duplicate: 1, unfolded: 1 } ? name : "rejected"}`, title: means }, title);
}

const SUMS_OF_DISPUTES = { disputed: "Disputed", charged_back: "Charged back" };

/** Totals by currency. */
export function totalsTable(totals, caption) {
  const sums = Object.entries(totals);
  // The columns for disputes are shown only if an amount is disputed or charged back.
  const names = ["paid", "refunded", "disputed", "charged_back", "net"].filter(
    (name) => !(name in SUMS_OF_DISPUTES) || sums.some(([, total]) => total[name]),
  );
  return table(
    caption,
    ["Currency", ...names.map((name) => SUMS_OF_DISPUTES[name] ?? name[0].toUpperCase() + name.slice(1))],
    sums.map(([currency, total]) => [currency, ...names.map((name) => amount(total[name] ?? 0, currency))]),
    names.map((_, at) => at + 1),
  );
}

/** Anomalies, each with its meaning and its remedy. */
export function anomalyNotes(names) {
  if (!names.length) return null;
  return h(
    "ul",
    { class: "notes" },
    names.map((name) => {
      const words = ANOMALIES[name] ?? { title: name, means: "", todo: "" };
      return h(
        "li",
        {},
        h("h3", {}, words.title, " ", h("code", {}, name)),
        h("p", {}, words.means),
        h("p", {}, h("strong", {}, "What to do: "), words.todo),
      );
    }),
  );
}

/** A list of terms with their values. */
export function facts(pairs) {
  return h(
    "dl",
    { class: "facts" },
    pairs.filter(Boolean).map(([term, value]) => h("div", {}, h("dt", {}, term), h("dd", {}, value))),
  );
}

/** "3 payments". */
export function several(count, one, many = `${one}s`) {
  return `${integer(count)} ${count === 1 ? one : many}`;
}

/** Links to the next page of a list, and back to its beginning. */
export function pager(parts, query, cursor) {
  if (!cursor && !query.cursor) return null;
  const { cursor: _, ...rest } = query;
  return h(
    "nav",
    { class: "pager", "aria-label": "Pages of the list" },
    query.cursor && h("a", { href: link(parts, rest) }, "Back to the newest"),
    cursor && h("a", { href: link(parts, { ...rest, cursor }) }, "Older ones"),
  );
}

/** A menu that sets one value of a list's query; choosing a value opens the list's new address. */
export function filter(label, parts, query, name, choices) {
  const select = h(
    "select",
    {
      id: `filter-${name}`,
      onchange: () => {
        const { cursor: _, ...rest } = query;
        location.hash = link(parts, { ...rest, [name]: select.value });
      },
    },
    choices.map(([value, text]) =>
      h("option", { value, selected: value === (query[name] ?? "") }, text),
    ),
  );
  return h("p", { class: "filter" }, h("label", { for: `filter-${name}` }, label), select);
}
