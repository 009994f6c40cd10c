"""The journal: balanced double-entry postings, one entry a success or refund.

In: what stands under a payment, and what was posted before. Out: the entries that post the
difference. What was posted is never changed: a correction is a reversal and a new entry.
Never: an entry that does not sum to zero in each currency; it can't be constructed.
"""

from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

import msgspec

from ledger.events import Event
from ledger.money import Money

PLEXY: Final = "assets:plexy"
SALES: Final = "income:sales"
REFUNDS: Final = "income:refunds"


class UnbalancedEntryError(ValueError):
    """An entry's postings don't sum to zero in some currency: a bug of ours, never bad data."""


class Posting(msgspec.Struct, frozen=True):
    """One leg: ``amount`` is in minor units, positive for a debit, negative for a credit."""

    account: str
    amount: int
    currency: str


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One immutable journal entry; ``partition`` and ``offset`` are its cause's place in the log.

    ``created`` is when the cause occurred, in Unix seconds; ``reverses`` names the entry that this
    one undoes.
    """

    entry_id: str
    payment_id: str
    refund_id: str | None
    event_id: str
    created: int
    partition: int
    offset: int
    reverses: str | None
    postings: tuple[Posting, ...]

    def __post_init__(self) -> None:
        sums: dict[str, int] = {}
        for posting in self.postings:
            sums[posting.currency] = sums.get(posting.currency, 0) + posting.amount
        if not self.postings or any(sums.values()):
            raise UnbalancedEntryError(f"entry {self.entry_id} does not balance: {sums}")


class Subject(msgspec.Struct, frozen=True, array_like=True):
    """What an entry is about: a payment's success, or one refund of it."""

    payment_id: str
    refund_id: str | None = None

    def entry_id(self, generation: int) -> str:
        """Name the entry; ids are quoted, since a shop's or Plexy's may hold slashes.

        >>> Subject("pay_1").entry_id(1), Subject("pay/1", "re_1").entry_id(2)
        ('payment/pay_1/1', 'refund/pay%2F1/re_1/2')
        """
        payment = quote(self.payment_id, safe="")
        if self.refund_id is None:
            return f"payment/{payment}/{generation}"
        return f"refund/{payment}/{quote(self.refund_id, safe='')}/{generation}"


class Posted(msgspec.Struct, frozen=True, array_like=True):
    """The entry that stands for a subject: its amount, and how many came before it, plus one."""

    generation: int
    money: Money


def post(subject: Subject, money: Money, before: Posted | None, cause: Event) -> list[Entry]:
    """Return the entries after which ``money`` stands for ``subject``: none, one or two."""
    if before is None:
        return [_entry(subject, money, 1, cause)]
    if before.money == money:
        return []
    return [_reversal(subject, before, cause), _entry(subject, money, before.generation + 1, cause)]


def posted_after(before: Posted | None, money: Money) -> Posted:
    """Return what stands posted once the entries of ``post`` are in the journal."""
    if before is not None and before.money == money:
        return before
    return Posted(1 if before is None else before.generation + 1, money)


def balances(entries: Mapping[str, Entry]) -> dict[tuple[str, str], int]:
    """Sum entries, each id once, by account and currency, in minor units."""
    sums: dict[tuple[str, str], int] = {}
    for entry in entries.values():
        for posting in entry.postings:
            key = (posting.account, posting.currency)
            sums[key] = sums.get(key, 0) + posting.amount
    return sums


def _entry(subject: Subject, money: Money, generation: int, cause: Event) -> Entry:
    entry_id = subject.entry_id(generation)
    return _build(entry_id, subject, money.amount_minor, money.currency, cause, reverses=None)


def _reversal(subject: Subject, before: Posted, cause: Event) -> Entry:
    entry_id = subject.entry_id(before.generation)
    amount, currency = -before.money.amount_minor, before.money.currency
    return _build(f"{entry_id}/reversal", subject, amount, currency, cause, reverses=entry_id)


def _build(  # noqa: PLR0913 - an entry's parts
    entry_id: str,
    subject: Subject,
    amount_minor: int,
    currency: str,
    cause: Event,
    *,
    reverses: str | None,
) -> Entry:
    is_payment = subject.refund_id is None
    debit, credit = (PLEXY, SALES) if is_payment else (REFUNDS, PLEXY)
    return Entry(
        entry_id=entry_id,
        payment_id=subject.payment_id,
        refund_id=subject.refund_id,
        event_id=cause.event_id,
        created=cause.created,
        partition=cause.partition,
        offset=cause.offset,
        reverses=reverses,
        postings=(
            Posting(debit, amount_minor, currency),
            Posting(credit, -amount_minor, currency),
        ),
    )
