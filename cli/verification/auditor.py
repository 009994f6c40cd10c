"""The auditor: compares a ledger's tables and topics with its log of record.

The auditor reads the tables only after the workers have folded the log up to known offsets (see
``ledger.verification.truth``). It reports a difference only after it has read the log again up to
its end, because a later record may explain the difference.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import msgspec

from cli.printing import Heard
from cli.topics.ledger_reader import LedgerNames, LedgerReader, Offsets
from cli.verification.replicas import DiskCheck, Disks, Workers
from ledger.deduplication import PROGRESS_KEY
from ledger.verification.audit import Check, check_document, check_order, check_payment, check_seen
from ledger.verification.differences import Difference, DifferenceKind
from ledger.verification.gathered_orders import gather
from ledger.verification.journal_audit import AuditedBalance, JournalAudit, differing
from ledger.verification.truth import Truth


class Holding(NamedTuple):
    """A topic whose latest value per key is judged.

    ``expected`` yields the keys that the topic must have, each with its partition. If ``by_key`` is
    true, the key alone decides the partition. Otherwise a key is in the same partition as its
    record in the log; this is the case in the table ``seen``. If ``in_rows`` is true, a value
    may consist of several rows, as in the table ``orders``.
    """

    topic: str
    check: Check
    expected: Callable[[Truth], Iterable[tuple[int, bytes]]]
    by_key: bool = True
    in_rows: bool = False


class HeldValue(NamedTuple):
    """The value of a key, or ``None``.

    The value was read from ``partition``. The key belongs in partition ``belongs``.
    """

    holding: Holding
    partition: int
    key: bytes
    value: bytes | None
    belongs: int

    def judge(self, truth: Truth) -> Iterator[Difference]:
        """Yield the differences of a value; a wrong partition is also a difference."""
        if self.belongs == self.partition:
            yield from self.holding.check(truth, self.partition, self.key, self.value)
            return
        yield Difference(
            kind=DifferenceKind.VALUE_MISPLACED,
            subject=f"key {self.key.decode(errors='replace')} of {self.holding.topic}",
            detail=f"it is in partition {self.partition}, but belongs in {self.belongs}",
        )


class Findings(msgspec.Struct, frozen=True):
    """The result of an audit.

    ``moving`` counts the payments in motion: the log has records of these payments that the workers
    may not have folded before the audit began, so some checks skip the payments.
    """

    differences: list[Difference]
    balances: list[AuditedBalance]
    moving: int
    records: int
    took_s: float
    disks: Disks


def holdings(names: LedgerNames) -> tuple[Holding, ...]:
    """Return the changelogs of the three tables, and the topic of the published documents."""
    return (
        Holding(names.changelog("seen"), check_seen, _seen, by_key=False),
        Holding(names.changelog("payments"), check_payment, _payments),
        Holding(names.changelog("orders"), check_order, _orders, in_rows=True),
        Holding(names.topics.orders, check_document, _orders),
    )


async def read_log(reader: LedgerReader, truth: Truth, heard: Heard) -> None:
    """Feed ``truth`` the records that the log has received since ``truth`` last read the log."""
    topic = reader.names.topics.webhooks
    ends = await reader.ends(topic)
    starts = {number: truth.next_offset(number) for number in ends}
    async for number, records in reader.read(topic, starts, ends):
        truth.read(number, records)
        heard(topic, len(records))
    for number, end in ends.items():
        truth.reached(number, end)


class Auditor:
    """One audit of a whole ledger; ``heard`` receives the number of records of each read.

    If ``workers`` is ``None``, no disks are compared.
    """

    def __init__(
        self,
        reader: LedgerReader,
        truth: Truth,
        heard: Heard = lambda _topic, _records: None,
        workers: Workers | None = None,
    ) -> None:
        self._reader = reader
        self._truth = truth
        self._heard = heard
        self._disks = DiskCheck(reader, workers, self._count)
        self._journal = JournalAudit(truth)
        # These values differed when they were read. They are judged again after the log was read
        # to its end.
        self._suspects: list[HeldValue] = []
        self._records = 0

    @property
    def entries(self) -> int:
        """The number of journal entries that the log explains."""
        return self._journal.entries

    async def audit(self, settled: Offsets) -> Findings:
        """Audit everything; the workers have folded the log up to ``settled``."""
        started = time.monotonic()
        self._truth.settled = settled
        await read_log(self._reader, self._truth, self._count)
        await self._disks.begin()
        for holding in holdings(self._reader.names):
            await self._judge(holding)
        disks, replicas = await self._disks.end()
        await self._read_journal()
        # The tables may already contain the effects of records that the log received while the
        # tables were read.
        await read_log(self._reader, self._truth, self._count)
        differences = [
            *self._truth.faults,
            *(found for held in self._suspects for found in held.judge(self._truth)),
            *self._journal.differences(self._truth.facts),
        ]
        # The balances are correct only after ``JournalAudit.differences`` has judged the
        # unexplained entries again.
        balances = self._journal.balances()
        differences += [*differing(balances), *replicas]
        took_s = time.monotonic() - started
        return Findings(differences, balances, self._truth.moving(), self._records, took_s, disks)

    async def _judge(self, holding: Holding) -> None:
        """Judge a topic, one partition after another, so that memory holds only one partition."""
        expected: dict[int, list[bytes]] = {}
        for number, key in holding.expected(self._truth):
            expected.setdefault(number, []).append(key)
        for number in await self._reader.ends(holding.topic):
            digest = self._disks.digest(holding.topic, number)
            values = await self._reader.latest(holding.topic, number, self._count, digest)
            values = gather(values) if holding.in_rows else values
            for key in expected.pop(number, ()):
                self._look(HeldValue(holding, number, key, values.pop(key, None), number))
            for key, value in values.items():
                belongs = self._truth.partition_of(key) if holding.by_key else number
                self._look(HeldValue(holding, number, key, value, belongs))

    def _look(self, held: HeldValue) -> None:
        if any(True for _ in held.judge(self._truth)):
            self._suspects.append(held)

    async def _read_journal(self) -> None:
        topic = self._reader.names.topics.entries
        async for _, records in self._reader.read(topic, {}, await self._reader.ends(topic)):
            for record in records:
                self._journal.read(record.key or b"", record.value)
            self._count(topic, len(records))

    def _count(self, topic: str, records: int) -> None:
        self._records += records
        self._heard(topic, records)


def _seen(truth: Truth) -> Iterator[tuple[int, bytes]]:
    for number, seen in truth.seen.items():
        yield number, PROGRESS_KEY
        for key in seen:
            yield number, key


def _payments(truth: Truth) -> Iterator[tuple[int, bytes]]:
    for payment_id in truth.payments:
        key = payment_id.encode()
        yield truth.partition_of(key), key


def _orders(truth: Truth) -> Iterator[tuple[int, bytes]]:
    for order_id in truth.orders():
        key = order_id.encode()
        yield truth.partition_of(key), key
