"""The comparer: reads two versions of a ledger, and finds the differences between them.

The comparer judges a difference only after it has read the log up to its end. The log may have
newer records of a payment, which perhaps only one of the versions has folded. Such a payment is *in
motion*, and can't be compared.
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


class VersionComparison(msgspec.Struct, frozen=True):
    """The result of a comparison.

    ``values`` and ``entries`` count the values and entries that are equal in both versions.
    ``moving`` counts the values and entries that were left out because their payment is in motion.
    ``cancelled`` counts the entries that only one journal has, and that the same journal reverses.
    """

    differences: list[Difference]
    values: int
    entries: int
    moving: int
    cancelled: int


class Comparer:
    """One comparison of two versions; ``heard`` receives the number of records of each read."""

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
        self._differing: list[Held] = []
        self._equal = 0

    async def compare(self, settled: Offsets) -> VersionComparison:
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
        for held in self._differing:
            if is_moving(self._truth, held):
                moving += 1
            else:
                found += differences(self._truth, held, self._versions)
        found += self._journal.differences(self._truth)
        return VersionComparison(
            differences=found,
            values=self._equal,
            entries=self._journal.same,
            moving=moving + self._journal.moving,
            cancelled=self._journal.cancelled,
        )

    def _pairs(self) -> list[tuple[View, str, str]]:
        """Return the views to compare, each with its topic in the old and in the new version.

        The table ``seen`` is not among the views. The log determines every byte of that table, so
        the audit of each version already compares the table with the log.
        """
        old, new = self._old.names, self._new.names
        return [
            (PAYMENT_VIEW, old.changelog("payments"), new.changelog("payments")),
            (ORDER_VIEW, old.changelog("orders"), new.changelog("orders")),
            (DOCUMENT_VIEW, old.topics.orders, new.topics.orders),
        ]

    async def _compare(self, view: View, number: int, old: str, new: str) -> None:
        """Compare one partition of a topic; memory holds only this partition of both versions."""
        before = view.gather(await self._old.latest(old, number, self._heard))
        after = view.gather(await self._new.latest(new, number, self._heard))
        for key in before.keys() | after.keys():
            held = Held(view, key, before.get(key), after.get(key))
            if is_equal(held):
                self._equal += 1
            else:
                self._differing.append(held)

    async def _entries(self, reader: LedgerReader, number: int) -> set[Record]:
        topic = reader.names.topics.entries
        ends = {number: (await reader.ends(topic)).get(number, 0)}
        found: set[Record] = set()
        async for _, records in reader.read(topic, {}, ends):
            found.update((record.key or b"", record.value) for record in records)
            self._heard(topic, len(records))
        return found
