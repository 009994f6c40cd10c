"""Refunds: the amounts of a payment that were paid back.

Input: the facts of a payment (the events about it that count), sorted by time. Output: the refunds
that count, each of them once, and the anomalies of refunds. A reversed refund does not count.
"""

from collections.abc import Sequence
from typing import Annotated, Final

import msgspec

from ledger.events import Event
from ledger.lifecycle import REFUND_REVERSED, REFUNDED, Kind
from ledger.published import AmountMinor, Currency, Id, UnixSeconds, meaning
from ledger.standing import own_id, reversal_among

OF_REFUND: Final = frozenset({Kind.REFUNDED, Kind.REFUND_REVERSED})


class Refund(msgspec.Struct, frozen=True, gc=False):
    """One refund, counted once: ``amount`` in minor units, ``created`` in Unix seconds."""

    refund_id: Annotated[
        Id, meaning("the refund's id, or the event's id if the event has only the payment's id")
    ]
    amount: Annotated[AmountMinor, meaning("the amount refunded, in minor units")]
    currency: Annotated[Currency, meaning("ISO 4217 code")]
    created: Annotated[UnixSeconds, meaning("when its earliest event was created")]
    event_id: Annotated[Id, meaning("its earliest event")]


def refunds_of(payment_id: str, facts: Sequence[Event]) -> tuple[list[Refund], set[str]]:
    """Return each refund that counts, as its earliest fact states it, and the refunds' anomalies.

    ``facts`` are sorted by time.
    """
    by_id: dict[str, list[Event]] = {}
    reversals: dict[str, list[Event]] = {}
    for fact in facts:
        if fact.kind is REFUNDED:
            by_id.setdefault(own_id(payment_id, fact), []).append(fact)
        elif fact.kind is REFUND_REVERSED:
            reversals.setdefault(own_id(payment_id, fact), []).append(fact)
    refunds: list[Refund] = []
    anomalies: set[str] = set()
    for refund_id, alike in by_id.items():
        first, money = alike[0], alike[0].moved
        undone = reversals.get(refund_id, ())
        if any(fact.money != money for fact in alike) or any(
            fact.money not in {None, money} for fact in undone
        ):
            anomalies.add("conflicting_refund")
        reversal = reversal_among(first, undone)
        if reversal is None:
            refunds.append(
                Refund(refund_id, money.amount_minor, money.currency, first.created, first.event_id)
            )
        elif alike[-1].created > reversal.created:
            anomalies.add("refund_after_reversal")
    if _are_uncertain(payment_id, facts):
        anomalies.add("refund_identity_uncertain")
    return refunds, anomalies


def _are_uncertain(payment_id: str, facts: Sequence[Event]) -> bool:
    """Return whether it is uncertain which refund is meant by a fact that has no refund's id.

    A refund that has no id is identified by its event. If it has the same money as a refund that
    has an id, the two may be the same refund.
    """
    unnamed = [fact for fact in facts if fact.kind in OF_REFUND and fact.data_id == payment_id]
    if len(unnamed) != 1 or unnamed[0].kind is REFUND_REVERSED:
        return bool(unnamed)
    money = unnamed[0].money
    return sum(fact.kind is REFUNDED and fact.money == money for fact in facts) > 1
