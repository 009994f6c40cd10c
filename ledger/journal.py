"""The journal: balanced double-entry postings, one entry for each success or refund.

Input: the standing fact of a success or refund, and the fact that stood before. Output: the entries
that post the difference. A posted entry is never changed: a correction is a reversal and a new
entry. The standing entry is always that of the standing fact, so it depends only on the facts.
Invariant: every entry sums to zero in each currency; an unbalanced entry can't be constructed.
"""

from collections.abc import Mapping
from typing import Annotated, Final
from urllib.parse import quote

import msgspec

from ledger.events import Event
from ledger.money import MAX_AMOUNT_MINOR
from ledger.published import Currency, Id, Position, UnixSeconds, meaning

PLEXY: Final = "assets:plexy"
SALES: Final = "income:sales"
REFUNDS: Final = "income:refunds"


class UnbalancedEntryError(ValueError):
    """An entry's postings don't sum to zero in some currency: a bug of ours, never bad data."""


class Posting(msgspec.Struct, frozen=True, gc=False):
    """One leg: ``amount`` is in minor units, positive for a debit, negative for a credit."""

    account: Annotated[
        str, meaning("the account's name", minLength=1, examples=[PLEXY, SALES, REFUNDS])
    ]
    amount: Annotated[
        int,
        meaning(
            "minor units: positive is a debit, negative a credit",
            minimum=-MAX_AMOUNT_MINOR,
            maximum=MAX_AMOUNT_MINOR,
        ),
    ]
    currency: Annotated[Currency, meaning("ISO 4217 code")]


class Entry(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One immutable journal entry, which posts one fact or takes it back.

    ``event_id``, ``created`` (Unix seconds), ``partition`` and ``offset`` are those of the fact,
    also in a reversal; ``reverses`` names the entry that a reversal takes back. So the content of
    an entry depends only on its fact, and not on the order in which facts arrive.
    """

    entry_id: Annotated[
        str, meaning("the entry's id and its record's key; do not parse it", minLength=1)
    ]
    payment_id: Annotated[Id, meaning("the payment that it is about")]
    refund_id: Annotated[Id | None, meaning("the refund that it is about; null for a payment")]
    event_id: Annotated[Id, meaning("the event that it posts or takes back")]
    created: Annotated[UnixSeconds, meaning("when that event was created")]
    partition: Annotated[Position, meaning("that event's partition of `plexy.webhooks`")]
    offset: Annotated[Position, meaning("that event's offset in the partition")]
    reverses: Annotated[
        str | None, meaning("the entry_id that it takes back; null unless it is a reversal")
    ]
    postings: Annotated[
        tuple[Posting, ...],
        meaning("its legs; they sum to zero in each currency", minItems=2),
    ]

    def __post_init__(self) -> None:
        sums: dict[str, int] = {}
        for posting in self.postings:
            sums[posting.currency] = sums.get(posting.currency, 0) + posting.amount
        if not self.postings or any(sums.values()):
            raise UnbalancedEntryError(f"entry {self.entry_id} does not balance: {sums}")


class Subject(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The subject of an entry: a payment's success, or one of its refunds."""

    payment_id: str
    refund_id: str | None = None

    def entry_id(self, event_id: str) -> str:
        """Return the id of a fact's entry; its ids are quoted, as they may contain slashes.

        >>> Subject("pay_1").entry_id("evt_1"), Subject("pay/1", "re_1").entry_id("evt_2")
        ('payment/pay_1/evt_1', 'refund/pay%2F1/re_1/evt_2')
        """
        payment, event = _quoted(self.payment_id), _quoted(event_id)
        if self.refund_id is None:
            return f"payment/{payment}/{event}"
        return f"refund/{payment}/{_quoted(self.refund_id)}/{event}"


def post(subject: Subject, standing: Event, before: Event | None) -> list[Entry]:
    """Return up to two entries, which make ``standing`` the posted fact of ``subject``.

    ``before`` is the fact that stood until now, if any. A correction is posted even if both facts
    have the same money, so that the same entry stands for any order of arrival.
    """
    if before is None:
        return [entry_of(subject, standing)]
    if standing.event_id == before.event_id:
        return []
    return [reversal_of(subject, before), entry_of(subject, standing)]


def balances(entries: Mapping[str, Entry]) -> dict[tuple[str, str], int]:
    """Sum entries by account and currency, in minor units."""
    sums: dict[tuple[str, str], int] = {}
    for entry in entries.values():
        for posting in entry.postings:
            key = (posting.account, posting.currency)
            sums[key] = sums.get(key, 0) + posting.amount
    return sums


def entry_of(subject: Subject, fact: Event) -> Entry:
    """Return the entry that posts a fact."""
    return _build(subject.entry_id(fact.event_id), subject, fact, fact.moved.amount_minor, None)


def reversal_of(subject: Subject, fact: Event) -> Entry:
    """Return the entry that takes a fact's entry back."""
    reversed_id = subject.entry_id(fact.event_id)
    return _build(f"{reversed_id}/reversal", subject, fact, -fact.moved.amount_minor, reversed_id)


def postings_of(subject: Subject, amount_minor: int, currency: str) -> tuple[Posting, Posting]:
    """Return the two legs of a success or refund; a reversal has a negative amount."""
    debit, credit = (PLEXY, SALES) if subject.refund_id is None else (REFUNDS, PLEXY)
    return Posting(debit, amount_minor, currency), Posting(credit, -amount_minor, currency)


def _quoted(text: str) -> str:
    # Plexy's own ids have only letters, digits and underscores; this check is faster than quote().
    return text if text.isascii() and text.isidentifier() else quote(text, safe="")


def _build(
    entry_id: str, subject: Subject, fact: Event, amount_minor: int, reverses: str | None
) -> Entry:
    return Entry(
        entry_id=entry_id,
        payment_id=subject.payment_id,
        refund_id=subject.refund_id,
        event_id=fact.event_id,
        created=fact.created,
        partition=fact.partition,
        offset=fact.offset,
        reverses=reverses,
        postings=postings_of(subject, amount_minor, fact.moved.currency),
    )
