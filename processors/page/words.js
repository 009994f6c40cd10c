// Explains the ledger's names to the readers of the page.

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

/** The anomalies and the reasons, each with its remedy; the docs explain these names too. */
const words = await (await fetch(new URL("words.json", import.meta.url))).json();
export const ANOMALIES = words.anomalies;
export const REASONS = words.reasons;

export const OUTCOMES = {
  accepted: { title: "Accepted", means: "Kept in the log, and not judged yet: look again in a moment." },
  folded: { title: "Counted", means: "The event is part of its order." },
  duplicate: { title: "Duplicate", means: "The same event arrived before, and counts only once." },
  event_id_reused: {
    title: "Id used again",
    means: "A different event with this id counts already, and still counts; this event is in quarantine.",
  },
  unfolded: { title: "Kept only", means: "An event of this type changes no amount: it is kept and shown, but not counted." },
  rejected: { title: "Rejected", means: "In quarantine, and not counted." },
  replayed: { title: "Passed over", means: "Judged before a restart: the delivery was counted at that time." },
};

export const SIGNATURES = {
  good: "Signature good",
  not_checked: "Signature not checked: this worker has no secret",
  bearer: "No signature: a bearer token of the Pay API authenticated the sender",
  bearer_not_expected: "The delivery says that a bearer token of the Pay API authenticated it, but this ledger does not use the Pay API",
  signature_missing: "Signature missing",
  signature_malformed: "Signature malformed",
  signature_mismatch: "Signature does not match",
  timestamp_out_of_tolerance: "Signed too long before it arrived",
  arrival_unknown: "Signature not checked: the delivery’s time of arrival is unknown",
};

export const HOPS = { dedupe: "Deduplicate", payments: "Payments", orders: "Orders" };

/** The words for a delivery's outcome; a name that is not in OUTCOMES is a rejection's reason. */
export function outcome(name) {
  return OUTCOMES[name] ?? { title: "Rejected", means: REASONS[name]?.means ?? name };
}
