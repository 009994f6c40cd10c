// Formats values for people: amounts are exact to the minor unit, times are in the reader's own
// time zone and have UTC in their titles, and ages are in words.

import { h } from "./dom.js";

let decimals = {};

/** Set the number of decimals of each currency in the ledger. */
export function setDecimals(byCurrency) {
  decimals = byCurrency;
}

/**
 * Format minor units as major units. The calculation uses no float, and does not use the browser's
 * own number of decimals: for some currencies, the browser follows everyday use instead of
 * ISO 4217, so amounts would be wrong by a factor of a hundred.
 */
export function amount(minor, currency) {
  const digits = decimals[currency];
  if (digits === undefined) return `${integer(minor)} minor units of`;
  const value = BigInt(minor);
  const text = (value < 0n ? -value : value).toString().padStart(digits + 1, "0");
  const whole = text.slice(0, text.length - digits);
  const part = digits ? `.${text.slice(-digits)}` : "";
  const format = new Intl.NumberFormat(undefined, {
    minimumFractionDigits: digits,
    maximumFractionDigits: digits,
  });
  return format.format(`${value < 0n ? "-" : ""}${whole}${part}`).replace("-", "−");
}

/** An amount with its currency; the sign ≈ marks a number that has lost digits. */
export function money(minor, currency) {
  const exact = typeof minor === "bigint" || Number.isSafeInteger(minor);
  return `${exact ? "" : "≈ "}${amount(exact ? minor : Math.round(minor), currency)}\u00a0${currency}`;
}

/** A short form for an axis: 1.2M. */
export function compact(minor, currency) {
  const value = Number(minor) / 10 ** (decimals[currency] ?? 0);
  return new Intl.NumberFormat(undefined, { notation: "compact" }).format(value).replace("-", "−");
}

/** An integer with grouped digits. */
export function integer(value) {
  return new Intl.NumberFormat().format(value);
}

/** A time in Unix milliseconds as an element. */
export function time(ms, { seconds = true } = {}) {
  const at = new Date(Number(ms));
  if (Number.isNaN(at.getTime())) return String(ms);
  const utc = at.toISOString();
  const format = new Intl.DateTimeFormat(undefined, {
    dateStyle: "medium",
    timeStyle: seconds ? "medium" : "short",
  });
  const title = `${utc.replace("T", " ").replace("Z", "")} UTC`;
  return h("time", { datetime: utc, title }, format.format(at));
}

/** An event's time in Unix seconds as an element. */
export function eventTime(seconds) {
  return time(Number(seconds) * 1000);
}

/** A duration in words: "3 days". */
export function duration(ms) {
  const minutes = Math.max(0, Math.floor(ms / 60_000));
  const [value, unit] =
    minutes < 1
      ? [Math.max(0, Math.floor(ms / 1000)), "second"]
      : minutes < 60
        ? [minutes, "minute"]
        : minutes < 48 * 60
          ? [Math.floor(minutes / 60), "hour"]
          : [Math.floor(minutes / 1440), "day"];
  return `${integer(value)} ${unit}${value === 1 ? "" : "s"}`;
}

/** Bytes as text; null if they are not UTF-8. */
export function decoded(base64) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return null;
  }
}
