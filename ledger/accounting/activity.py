"""Activity: the amounts posted to each account, by currency and day.

Input: entries or payments. Output: sums in minor units; the sums over all days are the trial
balance. An entry counts on the day, in UTC, on which its event was created. An entry and its
reversal count on the same day, so they cancel each other out.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Final, TypeVar

from ledger.journal import Entry, entry_of
from ledger.payments import Payment, standing_of

DAY_S: Final = 24 * 3600

Key = TypeVar("Key")

Activity = Mapping[tuple[str, str, int], int]
"""Amounts in minor units, by account, currency and day (a number of days since 1970-01-01)."""


def activity_of(entries: Iterable[Entry]) -> dict[tuple[str, str, int], int]:
    """Sum entries; each entry must be given only once."""
    sums: dict[tuple[str, str, int], int] = defaultdict(int)
    for entry in entries:
        day = entry.created // DAY_S
        for posting in entry.postings:
            sums[posting.account, posting.currency, day] += posting.amount
    return sums


def standing_activity(payment: Payment) -> dict[tuple[str, str, int], int]:
    """Sum a payment's standing entries: the entries that are posted and not reversed."""
    return activity_of(entry_of(*standing) for standing in standing_of(payment).facts.items())


def add(sums: dict[Key, int], more: Mapping[Key, int]) -> None:
    """Add ``more`` to ``sums``."""
    for key, amount in more.items():
        sums[key] = sums.get(key, 0) + amount
