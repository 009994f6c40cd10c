"""The follower: repeats the auditor's work in rounds; each round reads only the new records.

A round returns all current differences. The follower judges a value only after it has read the log
to its end (see ``cli.verification.auditor``). It keeps the latest value of every key, so that it
also finds a value that should contain a new fact but was not written again.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any, NamedTuple

from cli.topics.ledger_reader import LedgerReader, Offsets
from cli.verification.auditor import HeldValue, Holding, holdings
from cli.verification.replicas import NOTHING_COMPARED, DiskWatch
from ledger.deduplication import PROGRESS_KEY
from ledger.large_orders import is_order_key, order_key_of
from ledger.verification.audit import check_payment, check_seen
from ledger.verification.differences import Difference, DifferenceKind
from ledger.verification.gathered_orders import gather
from ledger.verification.journal_audit import JournalAudit
from ledger.verification.replicas import AllTables, Replicas
from ledger.verification.truth import Truth
from processors.engine.marks import Mark

# After this many keys have been judged, other tasks, such as the answer to a probe, may run.
_JUDGED_AT_ONCE = 500


class _Place(NamedTuple):
    holding: Holding
    partition: int
    key: bytes


class RewrittenError(Exception):
    """A topic has different records at offsets that were read; ``difference`` names the place.

    The whole ledger must then be read again from the start.
    """

    def __init__(self, topic: str, partition: int, detail: str) -> None:
        super().__init__(f"{topic}[{partition}] {detail}")
        self.topic = topic
        self.difference = Difference(
            kind=DifferenceKind.LOG_INCOMPLETE, subject=f"{topic}[{partition}]", detail=detail
        )


class Follower:
    """Follows one ledger.

    ``records`` counts the records that were read from all topics. ``disks`` is the result of the
    last round's comparison of the workers' disks with the changelogs.
    """

    def __init__(self, reader: LedgerReader, truth: Truth) -> None:
        self.records = 0
        self.disks = NOTHING_COMPARED
        self._reader = reader
        self._truth = truth
        self._journal = JournalAudit(truth)
        self._holdings = holdings(reader.names)
        self._values: dict[_Place, bytes] = {}
        # ``_rows`` maps the place of a large order's head row to the other rows of the order.
        self._rows: dict[_Place, dict[bytes, bytes]] = {}
        self._positions: dict[str, dict[int, int]] = {}
        # ``_last`` maps each partition that was read to the mark of its last record.
        self._last: dict[tuple[str, int], Mark] = {}
        self._replicas = Replicas(reader.names.changelogs)
        self._watch = DiskWatch()
        self._is_first_round = True
        # These payments and places must be judged: they are new, were in motion, or differed.
        self._payments: set[str] = set()
        self._places: set[_Place] = set()

    async def round(self, settled: Offsets, tables: AllTables | None = None) -> list[Difference]:
        """Read and judge the new records; the workers have folded the log up to ``settled``.

        ``tables`` is the content of the workers' disks, or ``None`` if no worker answered.
        """
        self._truth.settled = settled
        await self._read_log()
        for holding in self._holdings:
            await self._read_values(holding)
        await self._read_journal()
        # The values and entries that were just read may contain facts that the log received after
        # it was read.
        await self._read_log()
        found = [*self._truth.faults, *await self._judge_values()]
        found += self._journal.differences(self._payments)
        self._compare_disks(tables)
        found += self._watch.differences
        self._payments = {
            payment_id
            for payment_id in self._payments
            if self._truth.knows(payment_id) and not self._truth.is_at_rest(payment_id)
        } | {each.payment_id for each in found if each.payment_id}
        return found

    async def _read_log(self) -> None:
        topic = self._reader.names.topics.webhooks
        ends = await self._reader.ends(topic)
        starts = {number: self._truth.next_offset(number) for number in ends}
        seen = next(each for each in self._holdings if each.check is check_seen)
        async for number, records in self._read_on(topic, starts, ends):
            new = self._truth.read(number, records)
            self.records += len(records)
            self._payments.update(event.kept_under for event in new.events)
            self._payments.update(note.kept_under for note in new.notes)
            self._places.update(_Place(seen, number, key) for key in (PROGRESS_KEY, *new.seen))
        for number, end in ends.items():
            self._truth.reached(number, end)

    async def _read_values(self, holding: Holding) -> None:
        position = self._positions.setdefault(holding.topic, {})
        ends = await self._ends_beyond(holding.topic, position)
        async for number, records in self._read_on(holding.topic, position, ends):
            for record in records:
                if self._reader.names.is_row(holding.topic, record.key or b""):
                    self._places.add(self._keep(holding, number, record))
            self.records += len(records)
        position.update(ends)
        for number, end in ends.items():
            digest = self._replicas.digest(holding.topic, number)
            if digest is not None:
                digest.reach(end)

    async def _ends_beyond(self, topic: str, position: Offsets) -> Offsets:
        """Return a topic's ends; raise ``RewrittenError`` if an end is below its ``position``."""
        ends = await self._reader.ends(topic)
        for number, end in ends.items():
            if end < (was := position.get(number, 0)):
                detail = f"it ends at offset {end}, but had been read up to {was}"
                raise RewrittenError(topic, number, detail)
        return ends

    async def _read_on(
        self, topic: str, starts: Offsets, ends: Offsets
    ) -> AsyncIterator[tuple[int, list[Any]]]:
        """Yield a topic's new records; raise ``RewrittenError`` if older records were replaced.

        If a topic has lost its last records, new records may have taken their offsets. So reading
        starts at the last record that was already read, and this record must be the same as before,
        unless compaction has removed it.
        """
        known = {
            number: last.offset
            for number, end in ends.items()
            if (last := self._last.get((topic, number))) and starts.get(number, 0) < end
        }
        async for number, fetched in self._reader.read(topic, {**starts, **known}, ends):
            records = fetched
            last = self._last.get((topic, number))
            if last and records and records[0].offset <= last.offset:
                if _mark(records[0]) != last:
                    detail = f"it no longer has the record that was read at offset {last.offset}"
                    raise RewrittenError(topic, number, detail)
                records = records[1:]
            if records:
                self._last[topic, number] = _mark(records[-1])
                yield number, records

    def _compare_disks(self, tables: AllTables | None) -> None:
        """Compare the replicas; if no worker answered, the earlier differences stay reported."""
        if self._is_first_round:
            self._replicas.forget_compacted()
            self._is_first_round = False
        self.disks = NOTHING_COMPARED
        if tables is not None:
            self.disks = self._replicas.compare(tables)
            self._watch.judge(self.disks, tables.unreachable)
            self._replicas.forget(tables)

    def _keep(self, holding: Holding, number: int, record: Any) -> _Place:
        """Keep a record's value; return the place to judge.

        For each row of an order, the place to judge is the place of the whole order.
        """
        key = record.key or b""
        place = _Place(holding, number, key)
        held: dict[Any, bytes] = self._values
        name: Any = place
        if holding.in_rows and not is_order_key(key):
            place = _Place(holding, number, order_key_of(key))
            held, name = self._rows.setdefault(place, {}), key
        before = held.pop(name, None)
        if record.value is not None:
            held[name] = record.value
        digest = self._replicas.digest(holding.topic, number)
        if digest is not None:
            digest.take(record.offset, key, before, record.value)
        return place

    async def _read_journal(self) -> None:
        topic = self._reader.names.topics.entries
        position = self._positions.setdefault(topic, {})
        ends = await self._ends_beyond(topic, position)
        async for _, records in self._read_on(topic, position, ends):
            for record in records:
                payment_id = self._journal.read(record.key or b"", record.value)
                if payment_id is not None:
                    self._payments.add(payment_id)
            self.records += len(records)
        position.update(ends)

    async def _judge_values(self) -> list[Difference]:
        """Judge the changed values, and the values that should contain new facts."""
        places = self._places | set(self._places_of(self._payments))
        found: list[Difference] = []
        self._places = set()
        for n, place in enumerate(places):
            if n % _JUDGED_AT_ONCE == 0:
                await asyncio.sleep(0)
            differences = list(self._held(place).judge(self._truth))
            if differences or not self._is_settled(place):
                self._places.add(place)
            found += differences
        return found

    def _held(self, place: _Place) -> HeldValue:
        holding, number, key = place
        value = self._values.get(place)
        if value is not None and place in self._rows:
            value = gather({key: value, **self._rows[place]})[key]
        belongs = number
        if holding.by_key and value is not None:
            belongs = self._truth.partition_of(key)
        return HeldValue(holding, number, key, value, belongs)

    def _is_settled(self, place: _Place) -> bool:
        """Return whether a place that does not differ now can be left out of the next round.

        This method decides only about rows of ``seen``. For all other places, ``_payments`` has the
        payments that must be judged again.
        """
        if place.holding.check is not check_seen:
            return True
        last = self._truth.progress.get(place.partition) if place.key == PROGRESS_KEY else None
        first = last or self._truth.seen.get(place.partition, {}).get(place.key)
        return first is None or first.offset < self._truth.settled.get(place.partition, 0)

    def _places_of(self, payments: Iterable[str]) -> Iterable[_Place]:
        """Yield the place of each payment, and of each order that may contain the payment."""
        for payment_id in payments:
            facts = self._truth.facts.get(payment_id, {}).values()
            notes = self._truth.notes.get(payment_id, {}).values()
            named = {fact.order_reference for fact in facts} - {None}
            named |= {note.order_reference for note in notes} - {None}
            for holding in self._holdings:
                if holding.check is check_seen:
                    continue
                of_payment = holding.check is check_payment
                for name in {payment_id} if of_payment else {payment_id, *named}:
                    key = str(name).encode()
                    yield _Place(holding, self._truth.partition_of(key), key)


def _mark(record: Any) -> Mark:
    return Mark.of(record.offset, record.timestamp, record.key, record.value)
