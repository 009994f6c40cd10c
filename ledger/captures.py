"""Captures: the amounts that were taken from an authorised payment.

Input: the facts of a payment (the events about it that count), sorted by time. Output: each capture
once, and the anomalies of captures, authorisations and voids. If a payment has captures, the
captured amounts count as paid, and the amount of the payment's success does not. An authorised
amount never counts as paid.
"""

from collections.abc import Iterator, Sequence
from typing import Annotated

import msgspec

from ledger.events import Event
from ledger.lifecycle import CAPTURED, SUCCEEDED, Kind
from ledger.money import Money
from ledger.published import AmountMinor, Currency, Id, UnixSeconds, meaning
from ledger.standing import own_id


class Capture(msgspec.Struct, frozen=True, gc=False):
    """One capture, counted once: ``amount`` in minor units, ``created`` in Unix seconds."""

    capture_id: Annotated[
        Id, meaning("the capture's id, or the event's id if the event has only the payment's id")
    ]
    amount: Annotated[AmountMinor, meaning("the amount captured, in minor units")]
    currency: Annotated[Currency, meaning("ISO 4217 code")]
    created: Annotated[UnixSeconds, meaning("when its earliest event was created")]
    event_id: Annotated[Id, meaning("its earliest event")]


def captures_of(payment_id: str, facts: Sequence[Event]) -> tuple[Capture, ...]:
    """Return each capture once, as its earliest fact states it, in chronological order."""
    found: dict[str, Capture] = {}
    for fact in facts:
        if fact.kind is CAPTURED:
            capture_id, money = own_id(payment_id, fact), fact.moved
            capture = Capture(
                capture_id, money.amount_minor, money.currency, fact.created, fact.event_id
            )
            found.setdefault(capture_id, capture)
    return tuple(found.values())


def capture_anomalies(
    payment_id: str, facts: Sequence[Event], captures: Sequence[Capture]
) -> Iterator[str]:
    """Yield the anomalies of captures, authorisations and voids."""
    kinds = {fact.kind for fact in facts}
    if Kind.VOIDED in kinds and not kinds.isdisjoint({Kind.SUCCEEDED, Kind.CAPTURED}):
        yield "voided_and_paid"
    yield from _excess(facts, captures)
    if sum(each.capture_id == each.event_id for each in captures) > 1:
        yield "capture_identity_uncertain"
    told = {(own_id(payment_id, fact), fact.money) for fact in facts if fact.kind is CAPTURED}
    if len(told) > len(captures):
        yield "conflicting_capture"
    if len({each.currency for each in captures}) > 1:
        yield "currency_mismatch"


def _excess(facts: Sequence[Event], captures: Sequence[Capture]) -> Iterator[str]:
    """Yield an anomaly if more was taken than was authorised, or if the currencies differ.

    The amount taken is the sum of the captures. If there is no capture, it is the amount of the
    earliest success. The limit is the largest authorised amount. If no amount was authorised, the
    limit for captures is the amount of the largest success.
    """
    successes = [fact.moved for fact in facts if fact.kind is SUCCEEDED]
    taken = [Money(each.amount, each.currency) for each in captures] or successes[:1]
    authorised = [each.money for each in facts if each.kind is Kind.AUTHORISED and each.money]
    limits = authorised or (successes if captures else [])
    if not taken or not limits:
        return
    currency = taken[0].currency
    if any(each.currency != currency for each in limits):
        yield "currency_mismatch"
    elif sum(each.amount_minor for each in taken if each.currency == currency) > max(
        each.amount_minor for each in limits
    ):
        yield "capture_exceeds_authorisation"
