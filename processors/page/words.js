// Explains the ledger's names to its readers.

export const STATUSES = {
  paid: "Paid",
  partially_refunded: "Partially refunded",
  refunded: "Refunded",
  over_refunded: "Over-refunded",
  disputed: "Disputed",
  charged_back: "Charged back",
  authorised: "Authorised, not captured",
  voided: "Voided",
  failed: "Failed",
  succeeded: "Succeeded",
  unknown: "No payment counts yet",
};

export const DISPUTES = { open: "Open", won: "Won", lost: "Lost" };

/** The names that the docs explain too, with the remedy for each. */
const words = await (await fetch(new URL("words.json", import.meta.url))).json();
export const ANOMALIES = words.anomalies;
export const REASONS = words.reasons;

export const OUTCOMES = {
  accepted: { title: "Accepted", means: "Kept in the log, and not judged yet: look again in a moment." },
  folded: { title: "Counted", means: "The event is part of its order." },
  duplicate: { title: "Duplicate", means: "The same event arrived before, and counts only once." },
  event_id_reused: {
    title: "Id used again",
    means: "Another event came under an id that counts already: in quarantine, the one that counts stands.",
  },
  unfolded: { title: "Kept only", means: "A type of event that changes no amount: kept, shown, and not counted." },
  rejected: { title: "Rejected", means: "In quarantine, and not counted." },
  replayed: { title: "Passed over", means: "Judged before a restart: it was counted then." },
};

export const SIGNATURES = {
  good: "Signature good",
  not_checked: "Signature not checked: this worker has no secret",
  bearer: "No signature: a bearer token of the Pay API authenticated the sender",
  bearer_not_expected: "It says that a bearer token authenticated it, but this ledger takes no Pay API",
  signature_missing: "Signature missing",
  signature_malformed: "Signature malformed",
  signature_mismatch: "Signature does not match",
  timestamp_out_of_tolerance: "Signed too long before it arrived",
  arrival_unknown: "No time of arrival to check the signature against",
};

export const HOPS = { dedupe: "Deduplicate", payments: "Payments", orders: "Orders" };

/** The words for a delivery's outcome; a name that is not an outcome is a rejection's reason. */
export function outcome(name) {
  return OUTCOMES[name] ?? { title: "Rejected", means: REASONS[name]?.means ?? name };
}
