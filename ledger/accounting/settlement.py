"""Reconciliation: matches the lines of a settlement file with the journal's standing entries.

Input: the file's lines, the standing entries (those that are posted and not reversed), and the
period that the file covers. Output: the number of matches, the mismatches, and the totals of both
sides. Invariants: no sum mixes currencies, and each line and each entry of the period counts
exactly once.

Payments are matched by id. The refunds of a payment are matched by amount, because the file has no
refund ids. An entry outside the period counts only if a line matches it.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Hashable, Iterable, Mapping
from enum import StrEnum
from operator import itemgetter
from typing import Literal

import msgspec

from ledger.journal import Entry, Movement, Subject
from ledger.money import Money

LineKind = Literal["payment", "refund"]


class Discrepancy(StrEnum):
    """How a line and an entry differ; in the names, *here* is the ledger, *there* is the file."""

    MISSING_HERE = "missing_here"
    MISSING_THERE = "missing_there"
    AMOUNT_DIFFERS = "amount_differs"
    CURRENCY_DIFFERS = "currency_differs"


class Line(msgspec.Struct, frozen=True, gc=False):
    """A payment or a refund in the file, with the number of its line."""

    number: int
    payment_id: str
    kind: LineKind
    money: Money


class Period(msgspec.Struct, frozen=True):
    """A period in Unix seconds: ``since`` is in it, ``before`` is not; ``None`` means no limit."""

    since: int | None = None
    before: int | None = None

    def __contains__(self, entry: Entry) -> bool:
        return (self.since is None or self.since <= entry.created) and (
            self.before is None or entry.created < self.before
        )


class Mismatch(msgspec.Struct, frozen=True):
    """A line without an entry, an entry without a line, or a line and an entry that differ."""

    finding: Discrepancy
    payment_id: str
    kind: LineKind
    line: Line | None = None
    entry: Entry | None = None


class Total(msgspec.Struct, frozen=True, kw_only=True):
    """The counts of lines and entries of one kind and currency, and their sums in minor units."""

    kind: LineKind
    currency: str
    lines: int
    lines_minor: int
    entries: int
    entries_minor: int


class Reconciliation(msgspec.Struct, frozen=True):
    """The result; ``mismatches`` are sorted by payment, and ``totals`` are sorted by currency."""

    matched: int
    mismatches: list[Mismatch]
    totals: list[Total]


def reconcile(lines: Iterable[Line], entries: Iterable[Entry], period: Period) -> Reconciliation:
    """Match a file's lines with standing entries; lines and entries may be unsorted."""
    groups: defaultdict[tuple[str, LineKind], _Group] = defaultdict(_Group)
    for each in lines:
        groups[each.payment_id, each.kind].lines.append(each)
    for posted in entries:
        groups[posted.payment_id, kind_of(posted)].entries.append(posted)
    matched = 0
    mismatches: list[Mismatch] = []
    totals = _Totals()
    for (payment_id, kind), group in sorted(groups.items(), key=itemgetter(0)):
        for line, entry in group.pairs(kind, period):
            totals.count(kind, line, entry)
            finding = _finding(line, entry)
            if finding is None:
                matched += 1
            else:
                mismatches.append(Mismatch(finding, payment_id, kind, line, entry))
    return Reconciliation(matched, mismatches, totals.all())


def settled(standing: Mapping[Subject, Entry]) -> list[Entry]:
    """Return the standing entries of the payments, captures and refunds that still count.

    The entries of disputes are left out, because a settlement file has no lines for them.
    """
    return [
        entry
        for subject, entry in standing.items()
        if subject.movement == "capture"
        or (subject.movement is None and _taken_back_by(subject) not in standing)
    ]


def _taken_back_by(subject: Subject) -> Subject:
    """Return the subject of the movement that takes back a success or a refund in full."""
    movement: Movement = "replacement" if subject.refund_id is None else "refund_reversal"
    return Subject(subject.payment_id, subject.refund_id, movement)


def kind_of(entry: Entry) -> LineKind:
    """Return whether an entry posts a payment's success or a refund."""
    return "payment" if entry.refund_id is None else "refund"


def money_of(entry: Entry) -> Money:
    """Return the money that a standing entry posts; the entry's first leg is the debit."""
    debit = entry.postings[0]
    return Money(debit.amount, debit.currency)


Pair = tuple[Line | None, Entry | None]


class _Group:
    """The lines and entries of one payment that have the same kind."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.entries: list[Entry] = []

    def pairs(self, kind: LineKind, period: Period) -> list[Pair]:
        """Return every line and every entry of the period exactly once, in pairs where possible."""
        # If several entries have a line's amount, an entry of the period is matched first.
        self.lines.sort(key=lambda line: line.number)
        self.entries.sort(key=lambda entry: (entry not in period, *_place(entry)))
        found = self._take(lambda money: money)
        if kind == "refund":
            # No line has the amount of a remaining entry. If such an entry is also outside the
            # period, it is a different refund.
            self.entries = [entry for entry in self.entries if entry in period]
        self.lines.sort(key=lambda line: line.money.amount_minor)
        self.entries.sort(key=lambda entry: money_of(entry).amount_minor)
        found += self._take(lambda money: money.currency)
        found += self._take(lambda _money: None)
        found += [(line, None) for line in self.lines]
        return found + [(None, entry) for entry in self.entries if entry in period]

    def _take(self, what: Callable[[Money], Hashable]) -> list[Pair]:
        """Remove and return the pairs of a line and an entry for which ``what`` returns the same.

        Each line gets the first entry that remains.
        """
        waiting: defaultdict[Hashable, deque[Entry]] = defaultdict(deque)
        for entry in self.entries:
            waiting[what(money_of(entry))].append(entry)
        found: list[Pair] = []
        unmatched: list[Line] = []
        for line in self.lines:
            alike = waiting[what(line.money)]
            if alike:
                found.append((line, alike.popleft()))
            else:
                unmatched.append(line)
        self.lines = unmatched
        self.entries = [entry for queue in waiting.values() for entry in queue]
        return found


class _Totals:
    """The counts and sums of both sides, by currency and kind."""

    def __init__(self) -> None:
        self._numbers = Counter[tuple[str, LineKind, str]]()
        self._sums = Counter[tuple[str, LineKind, str]]()

    def count(self, kind: LineKind, line: Line | None, entry: Entry | None) -> None:
        """Count a line, an entry, or a pair of both."""
        if line is not None:
            self._add(kind, line.money, "lines")
        if entry is not None:
            self._add(kind, money_of(entry), "entries")

    def all(self) -> list[Total]:
        """Return a total for each currency and kind that occurs on either side."""
        return [
            Total(
                kind=kind,
                currency=currency,
                lines=self._numbers[currency, kind, "lines"],
                lines_minor=self._sums[currency, kind, "lines"],
                entries=self._numbers[currency, kind, "entries"],
                entries_minor=self._sums[currency, kind, "entries"],
            )
            for currency, kind in sorted({(each[0], each[1]) for each in self._numbers})
        ]

    def _add(self, kind: LineKind, money: Money, side: str) -> None:
        self._numbers[money.currency, kind, side] += 1
        self._sums[money.currency, kind, side] += money.amount_minor


def _finding(line: Line | None, entry: Entry | None) -> Discrepancy | None:
    if line is None:
        return Discrepancy.MISSING_THERE
    if entry is None:
        return Discrepancy.MISSING_HERE
    money = money_of(entry)
    if line.money.currency != money.currency:
        return Discrepancy.CURRENCY_DIFFERS
    return None if line.money == money else Discrepancy.AMOUNT_DIFFERS


def _place(entry: Entry) -> tuple[int, int, int]:
    return entry.created, entry.partition, entry.offset
