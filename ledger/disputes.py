"""Disputes: the status and the amount of each dispute of a payment.

Input: the facts of a payment (the events about it that count), sorted by time. Output: each dispute
once, and the anomalies of the disputes. The latest outcome of a dispute decides its status; a
dispute that has no outcome is open. If several facts of a dispute state its amount, the earliest of
them decides.
"""

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

import msgspec

from ledger.events import Event
from ledger.lifecycle import Kind
from ledger.published import AmountMinor, Currency, Id, UnixSeconds, meaning
from ledger.standing import OF_DISPUTE, OUTCOMES

DisputeStatus = Literal["open", "won", "lost"]


class Dispute(msgspec.Struct, frozen=True, gc=False):
    """One dispute; ``amount`` is ``None`` if no event states it, and then no money is moved."""

    dispute_id: Annotated[
        Id, meaning("the dispute's id, or the payment's id if the events have no dispute's id")
    ]
    status: Annotated[DisputeStatus, meaning("the latest outcome; `open` if there is no outcome")]
    amount: Annotated[
        AmountMinor | None,
        meaning("the disputed amount, in minor units; null if no event states it"),
    ]
    currency: Annotated[
        Currency | None, meaning("ISO 4217 code; null if no event states the amount")
    ]
    created: Annotated[UnixSeconds, meaning("when its earliest event was created")]
    event_id: Annotated[Id, meaning("its earliest event")]


def disputes_of(facts: Sequence[Event]) -> tuple[tuple[Dispute, ...], set[str]]:
    """Return the disputes, sorted by the time of their earliest fact, and their anomalies."""
    by_id: dict[str, list[Event]] = {}
    for fact in facts:
        if fact.kind in OF_DISPUTE:
            by_id.setdefault(fact.data_id, []).append(fact)
    anomalies = {name for each in by_id.values() for name in _anomalies(each)}
    return tuple(_dispute(each) for each in by_id.values()), anomalies


def _dispute(facts: list[Event]) -> Dispute:
    outcomes = [fact for fact in facts if fact.kind in OUTCOMES]
    money = next((fact.money for fact in facts if fact.money is not None), None)
    status: DisputeStatus = "open"
    if outcomes:
        status = "lost" if outcomes[-1].kind is Kind.DISPUTE_LOST else "won"
    return Dispute(
        dispute_id=facts[0].data_id,
        status=status,
        amount=money.amount_minor if money else None,
        currency=money.currency if money else None,
        created=facts[0].created,
        event_id=facts[0].event_id,
    )


def _anomalies(facts: list[Event]) -> Iterator[str]:
    """Yield the contradictions among the facts of one dispute; ``facts`` are sorted by time."""
    monies = {fact.money for fact in facts if fact.money is not None}
    outcomes = [fact for fact in facts if fact.kind in OUTCOMES]
    is_reopened = outcomes and any(
        fact.kind is Kind.DISPUTED and fact.created > outcomes[0].created for fact in facts
    )
    if not monies:
        yield "dispute_amount_missing"
    # Events that have no dispute's id may be about different disputes.
    is_uncertain = facts[0].data_id == facts[0].payment_id and len(facts) - len(outcomes) > 1
    has_two_outcomes = len({fact.kind for fact in outcomes}) > 1
    if len(monies) > 1 or has_two_outcomes or is_reopened or is_uncertain:
        yield "conflicting_dispute"
