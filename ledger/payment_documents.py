"""The document of a payment: the state that its facts produce.

Input: the facts that a payment keeps, in any sequence. Output: the document that every page,
snapshot and published order shows. Invariant: equal sets of facts produce equal documents.
"""

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from operator import attrgetter
from typing import Annotated, Any, Final, Literal, get_args

import msgspec

from ledger.captures import Capture, capture_anomalies, captures_of
from ledger.disputes import Dispute, disputes_of
from ledger.events import FOLDED_TYPES, Event, Mark
from ledger.kept_facts import key_of as _by_time
from ledger.lifecycle import FAILED, SUCCEEDED, Kind
from ledger.notes import Note, NoteAnomaly
from ledger.published import (
    NOT_EMPTY,
    Currency,
    Id,
    Position,
    SumMinor,
    UnixSeconds,
    meaning,
)
from ledger.refunds import OF_REFUND, Refund, refunds_of

PaymentStatus = Literal[
    "disputed", "charged_back", "succeeded", "voided", "authorised", "failed", "unknown"
]

Anomaly = Literal[
    Mark,
    NoteAnomaly,
    "capture_exceeds_authorisation",
    "capture_identity_uncertain",
    "conflicting_amount",
    "conflicting_dispute",
    "conflicting_refund",
    "currency_mismatch",
    "dispute_amount_missing",
    "dispute_exceeds_payment",
    "dispute_without_payment",
    "failed_after_success",
    "order_id_is_payment_id",
    "payment_too_large",
    "refund_after_reversal",
    "refund_exceeds_payment",
    "refund_identity_uncertain",
    "refund_without_payment",
    "voided_and_paid",
]
"""The names by which documents report contradictions among facts, and data that does not count."""

TOO_LARGE: Final[Anomaly] = "payment_too_large"

# Later versions may add names, so programs downstream must accept unknown names.
ANOMALIES: Final[dict[str, Any]] = {
    "uniqueItems": True,
    "examples": [sorted(get_args(Anomaly))],
}

_OF_SEED: Final = frozenset({Kind.SUCCEEDED, Kind.FAILED, Kind.REFUNDED})
_BY_DISPUTE: Final[tuple[tuple[str, PaymentStatus], ...]] = (
    ("open", "disputed"),
    ("lost", "charged_back"),
)
_BY_KIND: Final[tuple[tuple[Kind, PaymentStatus], ...]] = (
    (Kind.SUCCEEDED, "succeeded"),
    (Kind.CAPTURED, "succeeded"),
    (Kind.VOIDED, "voided"),
    (Kind.AUTHORISED, "authorised"),
    (Kind.FAILED, "failed"),
)

_PAYS: Final = frozenset({Kind.SUCCEEDED, Kind.CAPTURED})

_by_time_of_refund: Final = attrgetter("created", "refund_id")


class EventReference(msgspec.Struct, frozen=True, gc=False):
    """A fact's event and its place in the log of record."""

    event_id: Annotated[Id, meaning("the event's id")]
    type: Annotated[Id, meaning("the event's type", examples=sorted(FOLDED_TYPES))]
    created: Annotated[UnixSeconds, meaning("when the event was created")]
    partition: Annotated[
        Position, meaning("the partition of `plexy.webhooks` with the delivery that counts")
    ]
    offset: Annotated[Position, meaning("that delivery's offset in the partition")]


class PaymentDocument(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The state that a payment's facts produce, as people and programs downstream see it.

    If there are captures, ``amount`` is the sum of those in the currency of the earliest capture.
    Otherwise ``amount`` and ``currency`` are those of the earliest success, or null without a
    success. A reversed refund is not among the refunds. Lists are sorted, so that equal states have
    equal documents.
    """

    payment_id: Annotated[Id, meaning("the payment's id")]
    status: Annotated[
        PaymentStatus,
        meaning(
            "the first of these that applies: disputed (a dispute is open), charged_back (a "
            "dispute is lost), succeeded, voided, authorised, failed, unknown"
        ),
    ]
    amount: Annotated[SumMinor | None, meaning("paid, in minor units; null if nothing was paid")]
    currency: Annotated[Currency | None, meaning("ISO 4217 code; null if nothing was paid")]
    created: Annotated[
        UnixSeconds,
        meaning(
            "when its earliest success was created; without a success, its earliest capture; "
            "without both, its earliest event"
        ),
    ]
    refunds: Annotated[
        tuple[Refund, ...], meaning("each refund once, by the time of its earliest event")
    ]
    events: Annotated[
        tuple[EventReference, ...], meaning("the events of its facts, by time", **NOT_EMPTY)
    ]
    anomalies: Annotated[
        tuple[str, ...], meaning("names of the payment's anomalies, sorted", **ANOMALIES)
    ]
    captures: Annotated[
        tuple[Capture, ...], meaning("each capture once, by the time of its earliest event")
    ] = ()
    disputes: Annotated[
        tuple[Dispute, ...], meaning("each dispute once, by the time of its earliest event")
    ] = ()


class PlacedPayment(PaymentDocument, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """A payment's document with the payment's order; ``version`` is the payment's number of facts.

    If only ``notes`` name a payment, it has no facts, and its status is ``unknown``.
    """

    order_id: str
    version: int
    notes: tuple[Note, ...] = ()


def document_of(
    payment_id: str, kept: Mapping[str, Event], *, is_too_large: bool
) -> PaymentDocument:
    """Return the document of a payment; ``kept`` holds the facts that it keeps, by event id.

    ``is_too_large`` means that the payment has more facts than it may keep, so some facts are not
    in ``kept``.
    """
    if len(kept) == 1:
        (fact,) = kept.values()
        if fact.kind is SUCCEEDED or fact.kind is FAILED:
            return _of_one_attempt(payment_id, fact, is_too_large=is_too_large)
    facts = sorted(kept.values(), key=_by_time)
    successes = [fact for fact in facts if fact.kind is SUCCEEDED]
    success = successes[0] if successes else None
    kinds = {fact.kind for fact in facts}
    refunds, names = refunds_of(payment_id, facts) if kinds & OF_REFUND else ([], set())
    captures: tuple[Capture, ...] = ()
    disputes: tuple[Dispute, ...] = ()
    if not kinds <= _OF_SEED:
        captures = captures_of(payment_id, facts)
        disputes, of_disputes = disputes_of(facts)
        names.update(of_disputes, capture_anomalies(payment_id, facts, captures))
    # To save time, no function is called for each fact: a payment may have hundreds of facts.
    events = [
        EventReference(fact.event_id, fact.type, fact.created, fact.partition, fact.offset)
        for fact in facts
    ]
    amount, currency = _paid(success, captures)
    if is_too_large:
        names.add(TOO_LARGE)
    if refunds or disputes:
        names.update(_excess(amount, currency, refunds, disputes))
    return PaymentDocument(
        payment_id=payment_id,
        status=_status(kinds, disputes),
        amount=amount,
        currency=currency,
        created=(success or (captures or facts)[0]).created,
        refunds=tuple(sorted(refunds, key=_by_time_of_refund)) if refunds else (),
        events=tuple(events),
        anomalies=_anomalies(facts, successes, names),
        captures=captures,
        disputes=disputes,
    )


def document_of_notes(payment_id: str, notes: tuple[Note, ...]) -> PaymentDocument:
    """Return the document of a payment that is named only by notes."""
    return PaymentDocument(
        payment_id=payment_id,
        status="unknown",
        amount=None,
        currency=None,
        created=notes[0].created,
        refunds=(),
        events=(),
        anomalies=(),
    )


def _of_one_attempt(payment_id: str, fact: Event, *, is_too_large: bool) -> PaymentDocument:
    """Return the document of a payment with one success or one failure, the most common case."""
    names, place = fact.marks, (fact.partition, fact.offset)
    paid = fact.moved if fact.kind is SUCCEEDED else None
    if is_too_large:
        names = tuple(sorted({*names, TOO_LARGE}))
    return PaymentDocument(
        payment_id=payment_id,
        status="failed" if paid is None else "succeeded",
        amount=None if paid is None else paid.amount_minor,
        currency=None if paid is None else paid.currency,
        created=fact.created,
        refunds=(),
        events=(EventReference(fact.event_id, fact.type, fact.created, *place),),
        anomalies=names,
    )


def _status(kinds: AbstractSet[Kind], disputes: Sequence[Dispute]) -> PaymentStatus:
    """Return the first status that applies, in the sequence of ``PaymentStatus``."""
    for dispute_status, status in _BY_DISPUTE:
        if disputes and any(each.status == dispute_status for each in disputes):
            return status
    for kind, status in _BY_KIND:
        if kind in kinds:
            return status
    return "unknown"


def _paid(success: Event | None, captures: Sequence[Capture]) -> tuple[int | None, str | None]:
    if captures:
        currency = captures[0].currency
        return sum(each.amount for each in captures if each.currency == currency), currency
    return (success.moved.amount_minor, success.moved.currency) if success else (None, None)


def _anomalies(facts: list[Event], successes: list[Event], found: set[str]) -> tuple[str, ...]:
    """Return the names of the payment's anomalies, sorted; ``found`` holds those found so far."""
    if len(facts) == 1 and not found:
        # Nearly every payment has one fact, which contradicts no other fact.
        return facts[0].marks
    names: set[str] = {*found, *(mark for fact in facts for mark in fact.marks)}
    names.update(_contradictions(facts, successes))
    return tuple(sorted(names))


def _contradictions(facts: list[Event], successes: list[Event]) -> Iterator[Anomaly]:
    """Yield the contradictions between attempts or references; ``facts`` are sorted by time."""
    if len({fact.money for fact in successes}) > 1:
        yield "conflicting_amount"
    if len({ref for fact in facts if (ref := fact.order_reference) is not None}) > 1:
        yield "conflicting_order"
    paid = [fact.created for fact in facts if fact.kind in _PAYS]
    failed = [fact.created for fact in facts if fact.kind is FAILED]
    if paid and failed and failed[-1] > paid[0]:
        yield "failed_after_success"


def _excess(
    paid: int | None,
    currency: str | None,
    refunds: Sequence[Refund],
    disputes: Sequence[Dispute],
) -> Iterator[Anomaly]:
    """Yield the anomalies of refunds and disputes, compared with the amount paid."""
    held = [each for each in disputes if each.status != "won" and each.amount is not None]
    if paid is None:
        if refunds:
            yield "refund_without_payment"
        if disputes:
            yield "dispute_without_payment"
        return
    if any(each.currency != currency for each in refunds) or any(
        each.currency != currency for each in held
    ):
        yield "currency_mismatch"
    refunded = sum(each.amount for each in refunds if each.currency == currency)
    disputed = sum(each.amount or 0 for each in held if each.currency == currency)
    if refunded > paid:
        yield "refund_exceeds_payment"
    if disputed and refunded + disputed > paid:
        yield "dispute_exceeds_payment"
