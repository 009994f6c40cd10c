// Explains the ledger's names to its readers, with the remedy for each problem.

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

export const ANOMALIES = {
  capture_exceeds_authorisation: {
    title: "Captured more than authorised",
    means: "The captures of a payment add up to more than was authorised; all of them count.",
    todo: "Look the payment up in Plexy’s dashboard, and refund what was captured too much.",
  },
  capture_identity_uncertain: {
    title: "Captures without an id",
    means: "Several captures have no id of their own, so each event counts; two of them may report one capture.",
    todo: "Compare the captures with Plexy’s dashboard, and have the sender give each capture an id.",
  },
  conflicting_capture: {
    title: "Conflicting capture",
    means: "One capture was reported with different amounts or currencies; the earliest report counts here.",
    todo: "Look the capture up in Plexy’s dashboard, and ask Plexy which report is right.",
  },
  conflicting_dispute: {
    title: "Conflicting dispute",
    means: "One dispute was reported with different amounts, as both won and lost, or as opened again; the latest outcome and the earliest amount count here.",
    todo: "Look the dispute up in Plexy’s dashboard, and check whether its outcome is final.",
  },
  dispute_amount_missing: {
    title: "Dispute without an amount",
    means: "No event of a dispute states its amount, so no money was moved for it.",
    todo: "Look the amount up in Plexy’s dashboard, and correct it in the books by hand.",
  },
  dispute_exceeds_payment: {
    title: "Disputed more than paid",
    means: "The refunds and disputes of a payment add up to more than was paid.",
    todo: "If the customer was refunded already, report the refund to the bank as evidence against the dispute.",
  },
  dispute_without_payment: {
    title: "Dispute without a payment",
    means: "A dispute arrived, and no successful payment that it belongs to.",
    todo: "Check that LEDGER_PAYMENT_FIELDS has the field in which the dispute names its payment.",
  },
  refund_after_reversal: {
    title: "Refund reported after its reversal",
    means: "A refund was reported as successful again after it was reversed; it does not count.",
    todo: "Ask Plexy whether the refund was paid out in the end; a second attempt needs an id of its own.",
  },
  voided_and_paid: {
    title: "Voided and paid",
    means: "A payment was reported both as voided and as paid; the money counts.",
    todo: "Ask Plexy whether the money was taken, and refund it if the order was cancelled.",
  },
  conflicting_amount: {
    title: "Conflicting amounts",
    means: "Plexy reported the same payment as successful with different amounts; the earliest one counts here.",
    todo: "Look the payment up in Plexy’s dashboard, and ask Plexy which amount was charged.",
  },
  conflicting_order: {
    title: "Conflicting orders",
    means: "Events of one payment name different orders; the payment is counted in the order that its earliest event names.",
    todo: "Find out which order the customer paid, and have the shop stop sending two references for one payment.",
  },
  conflicting_refund: {
    title: "Conflicting refund",
    means: "One refund was reported with different amounts or currencies; the earliest report counts here.",
    todo: "Look the refund up in Plexy’s dashboard, and ask Plexy which report is right.",
  },
  currency_mismatch: {
    title: "Several currencies in one payment",
    means: "A refund, capture or dispute is in another currency than its payment, so they can’t be set off against each other.",
    todo: "Ask Plexy what was paid back in the payment’s own currency, and correct it in the books by hand until then.",
  },
  failed_after_success: {
    title: "Failed after it was paid",
    means: "Plexy reported that the payment failed, later than it reported it as successful; it counts as paid here.",
    todo: "Look the payment up in Plexy’s dashboard: the bank may have taken the money back.",
  },
  order_id_is_payment_id: {
    title: "Order named like a payment",
    means: "The order’s id is also the id of one of its payments, and it has other payments: they may have met by chance.",
    todo: "Ask the shop whether these payments belong together, and have it send a reference with each payment.",
  },
  order_reference_unreadable: {
    title: "Order unknown",
    means: "An event has a field for its order, but no single order can be read from it; the payment is an order of its own here.",
    todo: "Look the payment up in Plexy’s dashboard, and have the shop send the order’s number as text.",
  },
  payment_too_large: {
    title: "Too many events of one payment",
    means: "A payment has more events than it keeps: the earliest count, and the others are in quarantine.",
    todo: "Find out why so many events name one payment; no real payment has that many.",
  },
  refund_exceeds_payment: {
    title: "Refunded more than paid",
    means: "The refunds of a payment add up to more than was paid.",
    todo: "Check in Plexy’s dashboard whether a refund was made twice, and claim the difference back.",
  },
  refund_identity_uncertain: {
    title: "Refunds that can’t be told apart",
    means: "Several refunds of one payment have no id of their own; each event counts as a refund of its own.",
    todo: "Check in Plexy’s dashboard how often the payment was refunded.",
  },
  refund_without_payment: {
    title: "Refund without a payment",
    means: "A refund arrived, and no successful payment that it belongs to.",
    todo: "Mostly it comes within minutes. Plexy delivers again for three days; after that ask Plexy for the payment’s event.",
  },
  refused_event: {
    title: "Refused event",
    means: "An event that names this order or payment was refused, so the money it reports does not count here.",
    todo: "Read its reason among the deliveries. Ask Plexy to send it again corrected, or have the operator retry it after a fix.",
  },
  status_contradicts_type: {
    title: "Status and type disagree",
    means: "An event’s status says something else than its type; the type counts.",
    todo: "Look the payment up in Plexy’s dashboard, and ask Plexy which of the two is right.",
  },
  time_implausible: {
    title: "Implausible time",
    means: "An event says that it was created before the year 2000, or more than a day after it arrived; its time of arrival is used.",
    todo: "Look the payment up in Plexy’s dashboard, and ask Plexy to correct the clock.",
  },
  unfolded_event: {
    title: "Event of an unknown type",
    means: "An event that names this order or payment is of a type that the ledger does not count, so money may have moved.",
    todo: "Look the payment up in Plexy’s dashboard, and have the operator check which types the ledger should count.",
  },
};

export const OUTCOMES = {
  accepted: { title: "Accepted", means: "Kept in the log, and not judged yet: look again in a moment." },
  folded: { title: "Counted", means: "The event is part of its order." },
  duplicate: { title: "Duplicate", means: "The same event was there before: dropped, counted once." },
  event_id_reused: {
    title: "Id used again",
    means: "Another event came under an id that counts already: in quarantine, the one that counts stands.",
  },
  unfolded: { title: "Kept only", means: "A type of event that changes no amount: kept, shown, and not counted." },
  rejected: { title: "Rejected", means: "In quarantine, and not counted." },
  replayed: { title: "Passed over", means: "Judged before a restart: it was counted then." },
};

export const REASONS = {
  malformed_json: "The body is no JSON.",
  invalid_envelope: "The body lacks what every event has: an id and a type.",
  control_characters: "An id, a type or a reference holds control characters.",
  key_mismatch: "The log has it under another id than its own.",
  event_id_reused: "Another event came under an id that was there before.",
  data_unreadable: "Its data is no object.",
  created_unreadable: "Its time is neither Unix seconds nor ISO 8601 with a zone.",
  id_missing: "It does not say which payment or refund it is about.",
  id_invalid: "The id of its payment or refund can’t be one.",
  reference_too_long: "A reference is longer than any id may be.",
  amount_missing: "It names no amount.",
  amount_not_integer: "Its amount is no whole number of minor units.",
  amount_negative: "Its amount is below zero.",
  amount_too_precise: "Its amount has more decimals than its currency.",
  amount_not_decimal: "Its amount is no decimal number.",
  amount_too_large: "Its amount is larger than can be exact.",
  currency_missing: "It names no currency.",
  currency_unknown: "Its currency is not in ISO 4217.",
  currency_conflicts: "Its amount has another currency than the event.",
  signature_refused: "It is in the log without a good signature.",
  batch_too_large: "It is a batch that unpacks to more than is read.",
  batch_unreadable: "It is a batch that can’t be read.",
  unreadable: "No worker wrote it where one worker hands on to the next.",
  too_many_events: "Its payment has more events than it keeps, and this one is later than those.",
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

/** The outcome of a delivery; a reason that is not a known outcome is a rejection's. */
export function outcome(name) {
  return OUTCOMES[name] ?? { title: "Rejected", means: REASONS[name] ?? name };
}
