"""Recovery: brings this worker's tables up to date with their changelogs after a rebalance.

Input: the partitions that a rebalance gave to this worker. Once these partitions' tables have all
records of their changelogs, records flow to the agents again. This worker's standby tables are
copies of tables that other workers fold. They follow their changelogs until the next rebalance.

This module replaces Faust's own recovery. Faust's recovery can silently lose fetched records
between the client and a table, or apply them to the wrong table
(`docs/decisions/0018-own-recovery.md`).

The worker does not ask for a changelog's end; it creates the end. For each partition that it will
fold, the worker takes the next epoch of the partition's writer, and appends a record, the claim.
From then on, the broker refuses records from earlier owners. So a table that holds every record
below the claim is complete, even if compaction or a transaction left gaps between the offsets.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import cached_property
from typing import Any, Final, cast

import msgspec
import structlog
from aiokafka.errors import IllegalStateError, KafkaConnectionError
from faust.tables.manager import TableManager
from faust.types import TP, AppT
from mode import Service
from mode.utils.locks import Event

from processors.engine.app import EngineApp
from processors.engine.changelogs import ChangelogLostError, ChangelogReader, Found, lost
from processors.engine.chunk import RevokedError, Tenure
from processors.engine.disk import is_of_rocksdb
from processors.engine.internals import start_fetching, start_tables
from processors.engine.positions import cut_off, other_record
from processors.engine.tables import CLAIM_KEY, ChangelogChunk, ChunkTable, StaleTableError
from processors.engine.writers import Writer
from runtime.kafka.batches import OutRecord, send_to_partition
from runtime.kafka.topic_looks import TopicsError
from runtime.kafka.topic_states import count_fault

log = structlog.get_logger(__name__)

_READ_WAIT_S: Final = 0.5
# A longer interval would mean fewer requests, but also a longer lag of the standby tables.
_FOLLOW_EVERY_S: Final = 0.1
# A broker restarts within seconds. A worker that gets no answer for this long ends, and is
# restarted.
_ANSWERED_WITHIN_S: Final = 60.0
_CONNECT_AGAIN_S: Final = 0.5
# A scrub that is reading a database stops at its next pause, within a second, and frees the files.
_FILES_FREE_WITHIN_S: Final = 30.0
_FILES_FREE_EVERY_S: Final = 0.1
# A worker waits this long for the next assignment of partitions.
_NEXT_REBALANCE_WITHIN_S: Final = 60.0


class RecoveryTimeoutError(Exception):
    """The recovery waited too long; the message names the missing answer and the time limit."""


class _Assignment(msgspec.Struct, frozen=True):
    """The changelogs that one rebalance gave to this worker.

    ``apart`` has each source partition that was assigned without its changelog. It also has each
    source partition that was not assigned although its changelog was assigned.
    ``rebalancing_count`` is the number of rebalances that had begun when this worker received the
    assignment.
    """

    actives: set[TP]
    standbys: set[TP]
    apart: set[TP]
    generation: int
    rebalancing_count: int

    def ensure_current(self, app: AppT) -> None:
        """Raise ``RevokedError`` once another rebalance has begun or ended."""
        begun = app.rebalancing_count != self.rebalancing_count
        if begun or app.consumer_generation_id != self.generation:
            raise RevokedError("another rebalance has begun")


class Recovery(Service):
    """The recovery service of one worker, with the methods that Faust's table manager calls."""

    def __init__(self, app: EngineApp, tables: TableManager, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.app = app
        self.tables = tables
        self.completed = Event()
        self._reader: ChangelogReader | None = None
        self._cycle: asyncio.Task[None] | None = None
        # The changelog partitions that are being restored, each with the end up to which it is
        # read.
        self._ends: dict[TP, int] = {}
        # The leader epoch under which each changelog was last compared with its table.
        self._leader_epochs: dict[TP, int] = {}

    def remaining(self) -> int:
        """Return how many changelog records must still be read before this worker can fold."""
        return sum(
            max(end - self._table(tp).end(tp.partition), 0) for tp, end in self._ends.items()
        )

    def on_partitions_revoked(self, _revoked: set[TP]) -> None:
        """Do nothing: a table that follows its changelog is correct until the next assignment."""

    async def on_rebalance(
        self, _assigned: set[TP], _revoked: set[TP], _new: set[TP], generation_id: int = 0
    ) -> None:
        """Start a new recovery with the partitions of this assignment."""
        await self.break_off()
        if self.app.should_stop:
            # A recovery uses the consumer's thread, but would run longer than that thread.
            return
        if generation_id != self.app.consumer_generation_id:
            log.info("rebalanced again", generation=generation_id)
            return
        self.app.in_recovery = True
        assigned = self.app.assignor.assigned_actives()
        actives = self._changelogs(assigned)
        standbys = self._changelogs(self.app.assignor.assigned_standbys()) - actives
        # The group's leader should have assigned each source together with its changelog.
        apart = (assigned - actives) ^ {self._source(tp) for tp in actives}
        count = int(self.app.rebalancing_count)
        assignment = _Assignment(actives, standbys, apart, generation_id, count)
        self._cycle = asyncio.create_task(self._guarded(assignment), name="recovery")

    async def break_off(self) -> None:
        """Stop updating tables from changelogs: the tables are about to lose partitions."""
        cycle, self._cycle = self._cycle, None
        if cycle is not None:
            cycle.cancel()
            await asyncio.wait([cycle])
        self._ends, self._leader_epochs = {}, {}

    async def on_stop(self) -> None:
        """Stop following the changelogs."""
        await self.break_off()
        if self._reader is not None:
            await self._reader.close()

    def _changelogs(self, tps: Iterable[TP]) -> set[TP]:
        return {tp for tp in tps if tp.topic in self.tables.changelog_topics}

    def _table(self, tp: TP) -> ChunkTable:
        return self.app.table_of(tp.topic)

    def _source(self, changelog: TP) -> TP:
        return TP(self._table(changelog).source, changelog.partition)

    async def _guarded(self, assignment: "_Assignment") -> None:
        """Recover the tables, then keep the standbys up to date; an error ends the worker."""
        try:
            self._require_recorded(assignment)
            if assignment.apart:
                await self._wait_for_rebalance(assignment.apart)
            await self._take_over(assignment)
            await self._resume(assignment)
            await self._follow(assignment.standbys)
        except* RevokedError:
            log.info("recovery broken off: the partitions were given back")
        except* Exception as error:  # noqa: BLE001 - ends the worker
            await self.crash(error)

    def _require_recorded(self, assignment: "_Assignment") -> None:
        """Raise ``TopicsError`` if a topic has more partitions than the ledger recorded.

        In that case, an operator has added partitions to the topic. Keys would move to the added
        partitions, so the added partitions are never folded.
        """
        made_with, consumer = self.app.conf.topic_partitions, cast("Any", self.app.consumer)
        for tp in sorted(assignment.actives | assignment.standbys | assignment.apart):
            if tp.partition >= made_with:
                count = len(consumer.client.partitions_for_topic(tp.topic))
                raise TopicsError(count_fault(tp.topic, count, made_with))

    async def _wait_for_rebalance(self, apart: set[TP]) -> None:
        """Fold nothing until the next rebalance; if it does not begin in time, end the worker."""
        named = ", ".join(sorted(f"{tp.topic}[{tp.partition}]" for tp in apart))
        text = f"sources were assigned without their changelogs, or vice versa: {named}"
        log.warning("nothing is folded until the next rebalance", reason=text)
        await asyncio.sleep(_NEXT_REBALANCE_WITHIN_S)
        raise RecoveryTimeoutError(
            f"{text}, and there was no other rebalance within {_NEXT_REBALANCE_WITHIN_S:g} s: stop "
            "the other programs in this group, such as workers of another version"
        )

    async def _take_over(self, assignment: "_Assignment") -> None:
        """Claim the changelogs, and restore their tables up to the claims."""
        actives, generation = assignment.actives, assignment.generation
        await self._open(actives)
        async with asyncio.TaskGroup() as group:
            claims = {tp: group.create_task(self._claim(tp, generation)) for tp in sorted(actives)}
        ends = {tp: claim.result() for tp, claim in claims.items()}
        reader = await self._connected()
        # The claim is not in the table yet, so the end to compare is the changelog's end before the
        # claim.
        await self._drop_misfits(reader, {tp: end - 1 for tp, end in ends.items()})
        self._ends = ends
        reader.follow(self._starts(actives))
        while self.remaining():
            chunks = await reader.read(_READ_WAIT_S)
            if not chunks:
                await self._require_claims(reader)
            await self._apply(reader, chunks, actives)
        self._ends = {}
        await self._check_sources(reader, actives)
        await self._check_fed(reader, actives)

    async def _require_claims(self, reader: ChangelogReader) -> None:
        """Raise ``ChangelogLostError`` if a changelog lost its claim, which then never arrives."""
        ends = await reader.ends(self._ends)
        for tp, end in self._ends.items():
            if ends[tp] < end:
                raise ChangelogLostError(lost(tp, 0, ends[tp], end, whose="claim"))

    async def _drop_misfits(self, reader: ChangelogReader, ends: Mapping[TP, int]) -> None:
        """Empty each table that does not match its changelog, to restore the table from scratch.

        A changelog can lose its last records, for example when a broker's disk is restored from an
        older copy. Later, the changelog can grow beyond the table's end again. So it is not enough
        to compare the ends: the changelog must still hold the last record that was applied to the
        table. Compaction removes that record once the changelog has a newer record with the same
        key. A table whose last record was removed can't be checked, so it is restored too.
        """
        stands = {tp: end for tp in ends if (end := self._table(tp).end(tp.partition))}
        known = {tp: self._table(tp).last(tp.partition) for tp in stands}
        at = {tp: mark.offset if mark else stands[tp] - 1 for tp, mark in known.items()}
        for tp, found in (await self._look_up(reader, at)).items():
            if known[tp] is not None and found.mark == known[tp] and stands[tp] <= ends[tp]:
                continue
            if found.begin > 0:
                raise ChangelogLostError(lost(tp, found.begin, found.end, stands[tp]))
            log.warning(
                "table restored from scratch",
                reason=f"{tp.topic}[{tp.partition}] holds offsets 0 to {found.end}, and its record "
                f"at {at[tp]} is not the last record in this worker's table, which ends at "
                f"{stands[tp]}",
            )
            await self._empty(self._table(tp), tp.partition)

    async def _check_sources(self, reader: ChangelogReader, actives: set[TP]) -> None:
        """Raise ``LostRecordsError`` unless each source still has the last record that was folded.

        If Kafka deleted that record because of its age, the record can't be compared. In that case,
        ``positions.starting`` compares the offsets.
        """
        marks = {self._source(tp): self._table(tp).folded(tp.partition) for tp in actives}
        known = {source: mark for source, mark in marks.items() if mark is not None}
        at = {source: mark.offset for source, mark in known.items()}
        for source, found in (await self._look_up(reader, at)).items():
            mark = known[source]
            if found.begin <= mark.offset < found.end and found.mark != mark:
                raise other_record(source, mark)

    async def _check_fed(self, reader: ChangelogReader, actives: set[TP]) -> None:
        """Raise ``LostRecordsError`` if the next hop's source has lost records that this hop wrote.

        If the next hop has not folded the lost records, the next hop's table does not show the
        loss.
        """
        written: dict[TP, int] = {}
        for tp in actives:
            table = self._table(tp)
            for number, end in table.fed(tp.partition).items():
                source = TP(str(table.feeds), number)
                written[source] = max(end, written.get(source, 0))
        async with _within(_ANSWERED_WITHIN_S, "Kafka did not return the ends of topics"):
            ends = await reader.ends(written)
        for source, end in written.items():
            if ends[source] < end:
                raise cut_off(source, ends[source], end)

    async def _look_up(self, reader: ChangelogReader, at: Mapping[TP, int]) -> dict[TP, Found]:
        async with _within(_ANSWERED_WITHIN_S, "Kafka did not send single records"):
            return await reader.look_up(at)

    async def _claim(self, changelog: TP, generation: int) -> int:
        """Append the claim to a changelog, as its only writer; return the changelog's new end."""
        source = self._source(changelog)
        offset = 0

        async def write(writer: Writer) -> None:
            nonlocal offset
            claim = [OutRecord(CLAIM_KEY, None)]
            offset = (await send_to_partition(writer, *changelog, claim)).last

        tenure = Tenure(self.app.consumer, source)
        # The group may be in a later generation by now. In that generation, the partition may not
        # be ours.
        tenure.generation = generation
        await self.app.writers.write(tenure, write)
        return offset + 1

    async def _resume(self, assignment: "_Assignment") -> None:
        """Let records pass to the agents, with the same steps in the same order as in Faust."""
        app, consumer = self.app, self.app.consumer
        await app.on_rebalance_complete.send()
        assignment.ensure_current(app)
        assigned = consumer.assignment()
        consumer.resume_partitions(assigned - self._changelogs(assigned))
        if assigned:
            await self._seek(consumer)
        # Nothing is awaited until ``start_fetching``, so that no rebalance can begin in between.
        assignment.ensure_current(app)
        app.in_recovery = False
        for tp in assignment.actives:
            self._table(tp).fold(tp.partition)
        self.completed.set()
        app.flow_control.resume()
        consumer.resume_flow()
        self.tables.on_actives_ready()
        if not assignment.standbys:
            self.tables.on_standbys_ready()
        app.on_rebalance_end()
        await start_fetching(app)

    async def _seek(self, consumer: Any) -> None:
        try:
            async with _within(_ANSWERED_WITHIN_S, "Kafka did not return the committed offsets"):
                await consumer.perform_seek()
        except IllegalStateError:
            # A rebalance has taken partitions away; the next assignment cancels this task.
            await asyncio.sleep(_NEXT_REBALANCE_WITHIN_S)
            raise

    async def _follow(self, standbys: set[TP]) -> None:
        """Keep the standby tables up to date until the next rebalance."""
        await self._open(standbys)
        reader = await self._connected()
        await self._compare(reader, standbys)
        ends = await reader.ends(standbys)
        while standbys:
            await self._apply_next(reader, standbys)
            if ends and all(self._table(tp).end(tp.partition) >= end for tp, end in ends.items()):
                self.tables.on_standbys_ready()
                ends = {}
            await asyncio.sleep(_FOLLOW_EVERY_S)

    async def _compare(self, reader: ChangelogReader, standbys: set[TP]) -> None:
        """Empty the tables that do not match their changelogs, then follow the changelogs."""
        await self._drop_misfits(reader, await reader.ends(standbys))
        reader.follow(self._starts(standbys))

    async def _apply_next(self, reader: ChangelogReader, standbys: set[TP]) -> None:
        """Apply the next records; if a partition has a new leader, compare the tables instead.

        The new leader may lack records that were already applied. After the comparison, the next
        call fetches the records again.
        """
        try:
            chunks = await reader.read(_READ_WAIT_S)
        except ChangelogLostError:
            await self._compare(reader, standbys)
            return
        epochs = {chunk.tp: chunk.records[-1].leader_epoch for chunk in chunks if chunk.records}
        if epochs.items() <= self._leader_epochs.items():
            await self._apply(reader, chunks, standbys)
            return
        await self._compare(reader, standbys)
        self._leader_epochs |= epochs

    async def _apply(
        self, reader: ChangelogReader, chunks: Iterable[ChangelogChunk], tps: set[TP]
    ) -> None:
        """Apply records; restore a partition from scratch if the records can't update its table."""
        for chunk in chunks:
            table, partition = self._table(chunk.tp), chunk.tp.partition
            try:
                table.apply(chunk)
            except StaleTableError as error:
                log.warning("table restored from scratch", reason=str(error))
                await self._empty(table, partition)
                reader.follow(self._starts(tps))
            await asyncio.sleep(0)

    async def _open(self, tps: set[TP]) -> None:
        for tp in sorted(tps):
            table = self._table(tp)
            try:
                await self._open_one(table, tp.partition)
            except StaleTableError as error:
                log.warning("table restored from scratch", reason=str(error))
                table.drop(tp.partition)
                await self._open_one(table, tp.partition)

    async def _empty(self, table: ChunkTable, partition: int) -> None:
        """Delete a partition's rows, but store up to which offset the source was folded.

        The files are deleted once no other task, such as a scrub, has the files open.
        """
        mark, had = table.folded(partition), table.had(partition)
        table.close(partition)
        await self._open_one(table, partition)
        table.drop(partition)
        await self._open_one(table, partition)
        table.note_had(partition, max(had, mark.offset + 1 if mark else 0))

    async def _open_one(self, table: ChunkTable, partition: int) -> None:
        """Open a partition's database, once no other task of this process has its files open."""
        place = f"partition {partition} of the table {table.name}"
        async with _within(_FILES_FREE_WITHIN_S, f"{place} was not free"):
            while True:
                try:
                    table.open(partition)
                except Exception as error:
                    if not is_of_rocksdb(error) or "LOCK: " not in str(error):
                        raise
                    await asyncio.sleep(_FILES_FREE_EVERY_S)
                else:
                    return

    def _starts(self, tps: set[TP]) -> Mapping[TP, int]:
        return {tp: self._table(tp).end(tp.partition) for tp in tps}

    async def _connected(self) -> ChangelogReader:
        """Return the reader; while no broker answers, for example during a restart, retry."""
        async with _within(_ANSWERED_WITHIN_S, "no broker answered"):
            while self._reader is None:
                reader = ChangelogReader(self.app.settings)
                try:
                    await reader.start()
                except KafkaConnectionError:
                    await reader.close()
                    await asyncio.sleep(_CONNECT_AGAIN_S)
                except BaseException:
                    await reader.close()
                    raise
                else:
                    self._reader = reader
        return self._reader


class Tables(TableManager):
    """Faust's table manager with our own recovery; Faust's setting ``TableManager`` names it."""

    app: EngineApp

    async def on_start(self) -> None:
        """Start without Faust's wait for further tables: all tables are declared by now."""
        await start_tables(self)
        await self.recovery.start()

    async def on_stop(self) -> None:
        """Stop the recovery before the tables, because the recovery writes to the tables."""
        await self.recovery.stop()
        await super().on_stop()

    async def on_rebalance(
        self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP], generation_id: int = 0
    ) -> None:
        """Break off the former recovery before the tables forget the former partitions."""
        await self.recovery.break_off()
        await super().on_rebalance(assigned, revoked, newly_assigned, generation_id)

    @cached_property
    def recovery(self) -> Any:
        """Our recovery service, which replaces Faust's own."""
        return Recovery(self.app, self, beacon=self.beacon)


@asynccontextmanager
async def _within(limit_s: float, what: str) -> AsyncIterator[None]:
    """Limit the block's time; the text of the ``RecoveryTimeoutError`` begins with ``what``."""
    try:
        async with asyncio.timeout(limit_s):
            yield
    except TimeoutError:
        text = f"{what} within {limit_s:g} s; the worker ends, and its next start tries again"
        raise RecoveryTimeoutError(text) from None
