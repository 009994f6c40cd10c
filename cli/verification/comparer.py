"""The comparer: reads two versions of a ledger, and finds where they do not say the same.

In: a reader of each, and a truth of their log. Out: the differences, and how much was compared.
Never: a verdict before the log was read past everything else: what came meanwhile is in motion.
"""

import msgspec

from cli.printing import Heard
from cli.topics.ledger_reader import LedgerReader, Offsets
from cli.verification.auditor import read_log
from ledger.verification.comparison import (
    DOCUMENT_VIEW,
    ORDER_VIEW,
    PAYMENT_VIEW,
    Held,
    JournalComparison,
    Record,
    Versions,
    View,
    differences,
    is_equal,
    is_moving,
)
from ledger.verification.differences import Difference
from ledger.verification.truth import Truth


class Comparison(msgspec.Struct, frozen=True):
    """What a comparison came to.

    ``values`` and ``entries`` are alike in both; ``moving`` were left out; ``cancelled`` entries
    are in one journal only, and taken back there.
    """

    differences: list[Difference]
    values: int
    entries: int
    moving: int
    cancelled: int


class Comparer:
    """One comparison of two versions; ``heard`` hears of what is read."""

    def __init__(
        self,
        old: LedgerReader,
        new: LedgerReader,
        truth: Truth,
        heard: Heard = lambda _topic, _records: None,
    ) -> None:
        self._old, self._new = old, new
        self._versions = Versions(old.names.topics.version, new.names.topics.version)
        self._truth = truth
        self._heard = heard
        self._journal = JournalComparison()
        self._unlike: list[Held] = []
        self._alike = 0

    async def compare(self, settled: Offsets) -> Comparison:
        """Compare everything; both versions have folded the log up to ``settled``."""
        self._truth.settled = settled
        for view, old, new in self._pairs():
            for number in await self._new.ends(new):
                await self._compare(view, number, old, new)
        for number in await self._new.ends(self._new.names.topics.entries):
            records = [await self._entries(reader, number) for reader in (self._old, self._new)]
            self._journal.read(self._versions, *records)
        await read_log(self._new, self._truth, self._heard)
        found: list[Difference] = []
        moving = 0
        for held in self._unlike:
            if is_moving(self._truth, held):
                moving += 1
            else:
                found += differences(self._truth, held, self._versions)
        found += self._journal.differences(self._truth)
        return Comparison(
            differences=found,
            values=self._alike,
            entries=self._journal.same,
            moving=moving + self._journal.moving,
            cancelled=self._journal.cancelled,
        )

    def _pairs(self) -> list[tuple[View, str, str]]:
        """Return what is compared how: the topics of the old version and of the new one.

        Not the table ``seen``: the log says to the byte what each version must have there.
        """
        old, new = self._old.names, self._new.names
        return [
            (PAYMENT_VIEW, old.changelog("payments"), new.changelog("payments")),
            (ORDER_VIEW, old.changelog("orders"), new.changelog("orders")),
            (DOCUMENT_VIEW, old.topics.orders, new.topics.orders),
        ]

    async def _compare(self, view: View, number: int, old: str, new: str) -> None:
        """Compare a partition of a topic: no more than one of each version is in memory."""
        before = view.gather(await self._old.latest(old, number, self._heard))
        after = view.gather(await self._new.latest(new, number, self._heard))
        for key in before.keys() | after.keys():
            held = Held(view, key, before.get(key), after.get(key))
            if is_equal(held):
                self._alike += 1
            else:
                self._unlike.append(held)

    async def _entries(self, reader: LedgerReader, number: int) -> set[Record]:
        topic = reader.names.topics.entries
        ends = {number: (await reader.ends(topic)).get(number, 0)}
        found: set[Record] = set()
        async for _, records in reader.read(topic, {}, ends):
            found.update((record.key or b"", record.value) for record in records)
            self._heard(topic, len(records))
        return found
