// Elements out of values. Whatever comes from outside becomes text here, and never markup: there is
// no way to hand HTML in, and the page's policy (trusted-types 'none') refuses every other one.

const SVG = "http://www.w3.org/2000/svg";

/** Make an element: `on…` are listeners, `null` and `false` are left out, `true` is a bare name. */
export function h(tag, properties = {}, ...children) {
  return fill(document.createElement(tag), properties, children);
}

/** Make an element of a drawing. */
export function s(tag, properties = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), properties, children);
}

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...nodes(children));
  return element;
}

function nodes(children) {
  return children
    .flat(Infinity)
    .filter((child) => child !== null && child !== undefined && child !== false)
    .map((child) => (child instanceof Node ? child : document.createTextNode(String(child))));
}

/** Put these children in place of what an element holds. */
export function replace(element, ...children) {
  element.replaceChildren(...nodes(children));
  return element;
}

/** Make these an element's children; those that stay are not touched, and keep the focus. */
export function arrange(element, children) {
  const staying = new Set(children);
  for (const child of [...element.children]) if (!staying.has(child)) child.remove();
  children.forEach((child, index) => {
    const there = element.children[index] ?? null;
    if (there !== child) element.insertBefore(child, there);
  });
}

/** Fill an element anew if its value changed; what had the focus in it has it again. */
export function refill(element, value, ...children) {
  const text = fingerprint(value);
  if (shown.get(element) === text) return;
  shown.set(element, text);
  const nameOf = (each) => each.getAttribute("href") ?? each.id;
  const { activeElement } = document;
  const focused = element.contains(activeElement) ? nameOf(activeElement) : "";
  replace(element, ...children);
  const others = focused ? [...element.querySelectorAll("a[href], [id]")] : [];
  others.find((each) => nameOf(each) === focused)?.focus({ preventScroll: true });
}

/** A value as text, by which it is told whether it changed. */
export function fingerprint(value) {
  return JSON.stringify(value, (_key, each) => (typeof each === "bigint" ? `${each}` : each));
}

const shown = new WeakMap();

/** Say something to those who listen to the page rather than look at it. */
export function say(text) {
  document.getElementById("said").textContent = text;
}

/**
 * A table with a caption that is read out; numbers stand right where `numeric` names the column. On a
 * narrow screen the cells of a row stand below its head, each with its column's name.
 */
export function table(caption, columns, rows, numeric = []) {
  const kind = (index) => (numeric.includes(index) ? "number" : null);
  const around = h(
    "div",
    { class: "scroll" },
    h(
      "table",
      { class: columns.length > 2 ? "stacking" : null },
      h("caption", { class: "unseen" }, caption),
      h(
        "thead",
        {},
        h("tr", {}, columns.map((name, index) => h("th", { scope: "col", class: kind(index) }, name))),
      ),
      h(
        "tbody",
        {},
        rows.map((row) =>
          h(
            "tr",
            {},
            row.map((cell, index) =>
              index === 0
                ? h("th", { scope: "row" }, cell)
                : h("td", { class: kind(index), "data-column": columns[index] }, cell),
            ),
          ),
        ),
      ),
    ),
  );
  widths.observe(around);
  return around;
}

// What scrolls sideways on a narrow screen can be scrolled by keyboard too, and has a name.
const widths = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    const attributes = {
      tabindex: "0",
      role: "region",
      "aria-label": target.querySelector("caption").textContent,
    };
    for (const [name, value] of Object.entries(attributes)) {
      if (target.scrollWidth > target.clientWidth) target.setAttribute(name, value);
      else target.removeAttribute(name);
    }
  }
});
