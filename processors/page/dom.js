// Makes elements from values. Every value becomes text, never markup: no function here takes HTML,
// and the page's policy (trusted-types 'none') refuses HTML from any other code.

const SVG = "http://www.w3.org/2000/svg";

/**
 * Make an element. A property whose name begins with `on` adds a listener, and any other property
 * adds an attribute. The value `true` adds an empty attribute; `null` and `false` add nothing.
 */
export function h(tag, properties = {}, ...children) {
  return fill(document.createElement(tag), properties, children);
}

/** Make an element of a drawing (SVG). */
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

/** Replace all children of an element with the given children. */
export function replace(element, ...children) {
  element.replaceChildren(...nodes(children));
  return element;
}

/** Set an element's children; a child that stays is not touched, so it keeps the focus. */
export function arrange(element, children) {
  const staying = new Set(children);
  for (const child of [...element.children]) if (!staying.has(child)) child.remove();
  children.forEach((child, index) => {
    const there = element.children[index] ?? null;
    if (there !== child) element.insertBefore(child, there);
  });
}

/** Refill an element if its value changed; restore the focus inside the element. */
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

/** Return a value as text, for comparisons. */
export function fingerprint(value) {
  return JSON.stringify(value, (_key, each) => (typeof each === "bigint" ? `${each}` : each));
}

const shown = new WeakMap();

/** Announce a text to readers who use a screen reader. */
export function say(text) {
  document.getElementById("said").textContent = text;
}

/**
 * Make a table with a caption for screen readers. The columns in `numeric` are right-aligned. On a
 * narrow screen, the cells of a row are below the row's head, and each cell has its column's name.
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

// If a table is wider than the screen, it scrolls sideways. These attributes let readers scroll the
// table with the keyboard, and give it a name for screen readers.
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
