// Draws the counts of the last seconds as a line, and the amounts of days as bars. The page also
// shows a drawing's numbers as text or as a table, so that a drawing is never the only place of a
// number.

import { s } from "./dom.js";

/** Draw counts, with the latest count on the right. */
export function sparkline(values, length, label) {
  const [width, height] = [240, 48];
  const most = Math.max(1, ...values);
  const shown = values.slice(-length);
  const step = width / (length - 1);
  const left = width - step * (shown.length - 1);
  const points = shown.map((value, index) => [
    left + index * step,
    height - 3 - (value / most) * (height - 8),
  ]);
  const line = points.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" ");
  const area = points.length ? `${left.toFixed(1)},${height} ${line} ${width},${height}` : "";
  return s(
    "svg",
    {
      class: "sparkline",
      viewBox: `0 0 ${width} ${height}`,
      preserveAspectRatio: "none",
      role: "img",
      "aria-label": label,
    },
    s("polygon", { class: "area", points: area }),
    s("polyline", { class: "line", points: line, "vector-effect": "non-scaling-stroke" }),
  );
}

/**
 * Draw each day's paid amount above the line, its refunds below the line, and its net as a mark.
 * `days` are `{ label, title, paid, refunded, net }` in minor units, as BigInt; `width` is in pixels.
 */
export function bars(days, label, axis, width) {
  const [height, right, top, bottom] = [240, 4, 12, 24];
  const up = largest(days.map((day) => day.paid), days.map((day) => day.net));
  const down = largest(days.map((day) => day.refunded), days.map((day) => -day.net));
  const ticks = scale(up, down);
  // In some languages, a tick's label is long. If the label were cut off, a reader might miss its
  // minus sign.
  const left = 14 + 7 * Math.max(...ticks.map((tick) => axis(tick).length));
  const [highest, lowest] = [ticks.at(-1), ticks[0]];
  const y = (value) =>
    top + ((highest - Number(value)) / (highest - lowest || 1)) * (height - top - bottom);
  const slot = (width - left - right) / days.length;
  const bar = Math.max(1, Math.min(24, slot * 0.62));
  const every = Math.ceil(days.length / (width / 90));
  const column = (kind, x, from, to) =>
    s("rect", {
      class: kind,
      x: (x - bar / 2).toFixed(1),
      y: Math.min(y(from), y(to)).toFixed(1),
      width: bar.toFixed(1),
      height: Math.abs(y(from) - y(to)).toFixed(1),
      rx: Math.min(2, bar / 4).toFixed(1),
    });
  return s(
    "svg",
    { class: "bars", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label },
    ticks.map((tick) => [
      s("line", { class: tick === 0 ? "zero" : "grid", x1: left, x2: width, y1: y(tick), y2: y(tick) }),
      s("text", { class: "tick", x: left - 8, y: y(tick) + 4, "text-anchor": "end" }, axis(tick)),
    ]),
    days.map((day, index) => {
      const x = left + slot * (index + 0.5);
      return s(
        "g",
        {},
        s("title", {}, day.title),
        s("rect", { class: "whole", x: x - slot / 2, y: top, width: slot, height: height - top - bottom }),
        day.paid > 0n && column("paid", x, day.paid, 0n),
        day.refunded > 0n && column("refunded", x, 0n, -day.refunded),
        (day.paid > 0n || day.refunded > 0n) &&
          s("line", { class: "net", x1: x - bar / 2 - 2, x2: x + bar / 2 + 2, y1: y(day.net), y2: y(day.net) }),
        (days.length - 1 - index) % every === 0 &&
          // The last label is right-aligned: it would not fit if it were centred below its bar.
          (index === days.length - 1
            ? s("text", { class: "tick", x: width - right, y: height - 6, "text-anchor": "end" }, day.label)
            : s("text", { class: "tick", x, y: height - 6, "text-anchor": "middle" }, day.label)),
      );
    }),
  );
}

function largest(...lists) {
  return Math.max(0, ...lists.flat().map(Number));
}

/** Return round values, including zero, from a value of at most `-down` to a value of at least `up`. */
function scale(up, down) {
  const rough = Math.max(up + down, 1) / 4;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((each) => each * unit).find((each) => each >= rough);
  const ticks = [];
  for (let tick = -Math.ceil(down / step); tick <= Math.max(1, Math.ceil(up / step)); tick += 1) {
    // Adding 0 removes the sign of a negative zero.
    ticks.push(tick * step + 0);
  }
  return ticks;
}
