"""The chunked transport: Faust's Kafka transport, one Faust event for a chunk of one partition.

Input: the records that ``fetcher`` got from Kafka. Output: ``Chunk`` values to agents,
and offsets to Kafka. An offset is never committed past a chunk that the agent has not declared
done: the topics are declared with ``acks=False``, so that Faust's own acks move nothing (0.15.3
also acks an event whose agent raised). Changelogs are not read here: see ``recovery``.

A plain Faust stream costs two tasks and a wait per message; here that cost is paid once per chunk.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import Any, Final, cast

import structlog
from aiokafka.errors import IllegalStateError
from faust.serializers import codecs
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.tuples import ConsumerMessage

from processors.engine.chunk import Chunk, FetchedRecord
from processors.engine.fetcher import ConsumerThread
from processors.engine.marks import Mark
from processors.engine.membership import SESSION_TIMEOUT_S, ask_group, clock_s, heed_fencing
from processors.engine.offsets import ChunkOffsets
from processors.engine.tables import ChunkTable
from runtime.kafka.internals import coordinator_of

# One chunk that is worked on and one that waits keep a partition busy; more only adds latency.
_MAX_IN_FLIGHT: Final = 2
# How soon a partition that was busy is asked for again, while others have nothing to deliver.
_BUSY_POLL_S: Final = 0.02
# How long the chunks at work may take to finish when partitions are taken away or the worker stops.
_FINISH_WITHIN_S: Final = 8.0
# How soon the group is asked again if it does not answer, as while its broker restarts.
_ASK_AGAIN_S: Final = 0.2
log = structlog.get_logger(__name__)

FOLD_ANEW: Final = "`plexy-ledger rebuild` folds the whole log of record anew"

heed_fencing()


class LostRecordsError(Exception):
    """A source does not hold what follows on what was folded: to go on would leave a hole."""


def other_record(source: TP, folded: Mark) -> LostRecordsError:
    """Return the error for a source that has another record where one was folded."""
    return LostRecordsError(
        f"{source.topic}[{source.partition}] has another record at offset {folded.offset} than the "
        f"one that was folded: it lost what it held, or was made anew. {FOLD_ANEW}"
    )


class Consumer(driver.Consumer):
    """Faust's consumer, with chunks in place of records."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.offsets = ChunkOffsets()
        self.at_work: set[asyncio.Task[Any] | None] = set()
        self.gives_back = False
        self.given_back = 0
        # Where each partition goes on; nothing is delivered of one that has no entry.
        self._next_offset: dict[TP, int] = {}
        # The record before that, and the leader epoch under which the log is known to hold it.
        self._last: dict[TP, Mark] = {}
        self._leader_epochs: dict[TP, int] = {}
        # The leader epochs for which that record is fetched once more, to be compared.
        self._compared: dict[TP, int] = {}
        # Where each one starts, from the end of the recovery until the fetch loop has sought it.
        self._starts: dict[TP, int] | None = None
        self._starting = False
        # Where each one started: so far it was folded before anything of it was done here.
        self._folded_before: dict[TP, int] = {}
        self._hole: dict[TP, tuple[int, int]] = {}
        # When the last question was asked that the group answered with "yes".
        self._confirmed_s = -math.inf

    def _new_consumer_thread(self) -> driver.AIOKafkaConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def is_member(self, generation: int) -> bool:
        """Ask the group whether we are a member of this generation of it, until it answers.

        Not by the consumer's own heartbeat, which would also act on the answer.
        """
        consumer = self._thread._ensure_consumer()  # noqa: SLF001
        while generation == self.app.consumer_generation_id:
            asked_s = clock_s()
            coordinator = coordinator_of(consumer)
            said = await self._thread.call_thread(ask_group, coordinator, generation)
            if said is not None:
                self._confirmed_s = asked_s if said else -math.inf
                return bool(said)
            await asyncio.sleep(_ASK_AGAIN_S)
        return False

    async def subscribe(self, topics: Iterable[str]) -> None:
        """Join the group with all topics, or not at all.

        The leader places a source and its changelog together only where every member has subscribed
        to the same topics. A worker that is stopped while it starts would join with a part of them.
        """
        app = cast("Any", self.app)
        sources = map(app.names.source_of, app.chunk_tables)
        if missing := {*sources, *app.tables.changelog_topics} - set(topics):
            self.log.warning("not joined: stopped before %s were there", ", ".join(sorted(missing)))
            return
        await super().subscribe(topics)

    @property
    def is_surely_member(self) -> bool:
        """Whether the group can't have given this worker's partitions to others by now.

        It does so a session after it last heard from a worker: one that stood still, or is cut off
        from Kafka, knows nothing of it.
        """
        return clock_s() - self._confirmed_s < SESSION_TIMEOUT_S

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, ConsumerMessage]]:  # noqa: ASYNC109
        """Yield each fetched partition's records as one message."""
        records, active = await self._wait_next_records(timeout)
        for tp, fetched in (records or {}).items():
            if self.should_stop or not self.flow_active:
                return
            if not fetched or not (active is None or tp in active):
                continue
            if chunk := await self._next_chunk(tp, fetched):
                yield tp, _message(chunk)

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:  # noqa: ASYNC109
        """Fetch from the partitions that have room for a chunk."""
        if active_partitions is None:
            return await super()._getmany(active_partitions, timeout)
        if self._starting:
            await self._start_sources()
        free = {tp for tp in active_partitions if self._has_room(tp)}
        if not free:
            await asyncio.sleep(_BUSY_POLL_S)
            return {}
        wait_s = timeout if len(free) == len(active_partitions) else _BUSY_POLL_S
        return await super()._getmany(free, wait_s)

    def _has_room(self, tp: TP) -> bool:
        return tp in self._next_offset and self.offsets.in_flight(tp) < _MAX_IN_FLIGHT

    async def _next_chunk(self, tp: TP, records: list[FetchedRecord]) -> Chunk | None:
        """Return the records as a chunk if they are the next ones of their partition.

        Faust drops what it fetched in some states. A commit behind such a hole would lose what is
        in it: so it is fetched again. One that is still there then is the log's own, and is passed
        where no records were: of a transaction's marker, say.
        """
        expected = self._next_offset.get(tp)
        if expected is None:
            return None
        if tp in self._compared or self._leader_epochs.get(tp) != records[-1].leader_epoch:
            if not await self._is_same_log(tp, records):
                return None
            records = [record for record in records if record.offset >= expected]
            if not records:
                return None
        if records[0].offset < expected:
            # The client begins a log anew whose end was before its position. What is appended to it
            # below that would never be folded.
            raise LostRecordsError(
                f"{tp.topic}[{tp.partition}] was read up to offset {expected}, and now has other "
                f"records from {records[0].offset} on: it lost what it held. {FOLD_ANEW}"
            )
        hole = (expected, records[0].offset)
        if records[0].offset > expected and self._hole.get(tp) != hole:
            self.log.info("%s: got offset %d, expected %d: fetch again", tp, hole[1], expected)
            self._hole[tp] = hole
            await self._thread.seek_wait({tp: expected})
            return None
        if records[0].offset > expected:
            begin = (await self.earliest_offsets(tp))[tp]
            if begin > expected:
                raise LostRecordsError(
                    f"{tp.topic}[{tp.partition}] was read up to offset {expected}, and now begins "
                    f"at {begin}: records were deleted before they were folded. {FOLD_ANEW}"
                )
        chunk = Chunk(self, tp, records)
        self._next_offset[tp] = chunk.next_offset
        self._last[tp] = records[-1].mark
        self.offsets.delivered(tp, chunk.next_offset, records[0].timestamp)
        return chunk

    async def _is_same_log(self, tp: TP, records: list[FetchedRecord]) -> bool:
        """Return whether a new leader has the last record that was read; first, fetch it again.

        A leader that lacks records counts on from its own end. So other records may stand at
        offsets that were read, and records that were never read below the next offset. Each leader
        writes under an epoch of its own, and what is written under one epoch is never cut off.
        """
        last = self._last.get(tp)
        if last is not None and tp not in self._compared:
            self._compared[tp] = records[-1].leader_epoch
            await self._thread.seek_wait({tp: last.offset})
            return False
        # Where the record is gone for its age, the log begins after it.
        if last is not None and records[0].offset <= last.offset and records[0].mark != last:
            raise other_record(tp, last)
        # This fetch may bring nothing but the record itself.
        self._leader_epochs[tp] = self._compared.pop(tp, records[-1].leader_epoch)
        return True

    def folded(self, tp: TP) -> int | None:
        """Return up to where a partition is folded; ``None`` of one that is not read here."""
        done = self.offsets.committable(tp)
        return self._folded_before.get(tp) if done is None else done

    def lag(self, tp: TP) -> int | None:
        """Return how many records of a partition are not folded; ``None`` before its first fetch.

        By the end that the last fetch told: Kafka is not asked for it.
        """
        folded = self.folded(tp)
        if folded is None or tp not in self.assignment():
            return None
        end: int | None = self.highwater(tp)
        return None if end is None else max(end - folded, 0)

    async def perform_seek(self) -> None:
        """Start each partition where its commit and its table say; see ``_start_of``."""
        await super().perform_seek()
        sources = {tp for tp in self.assignment() if not self._is_changelog_tp(tp)}
        if sources:
            begins = await self.earliest_offsets(*sources)
            ends = await self.highwaters(*sources)
            self._starts = {tp: self._start_of(tp, begins[tp], ends[tp]) for tp in sources}

    def _start_of(self, tp: TP, begin: int, end: int) -> int:
        """Return where a partition goes on: at the commit, but never beyond what the table folded.

        Anybody may set a commit, and a changelog may have lost its end; the commit then speaks of
        records that are not in the table. Records that are folded once more change nothing.
        """
        committed, folded = self._committed_offset[tp], self._folded_in_table(tp)
        if committed is None and begin > 0 and tp.topic != cast("Any", self.app).names.webhooks:
            # Kafka forgets the commits of a group that was empty for a week, and deletes these
            # records when they are as old: `dedupe` would not publish them again.
            raise LostRecordsError(
                f"{tp.topic}[{tp.partition}] begins at offset {begin}, and nobody knows any more "
                f"whether what was before it is folded. {FOLD_ANEW}"
            )
        start: int = begin if committed is None else committed
        if folded is not None and (folded or committed):
            start = min(start, folded)
        furthest = max(start, committed or 0, folded or 0)
        if start < begin or furthest > end:
            raise LostRecordsError(
                f"{tp.topic}[{tp.partition}] is folded up to offset "
                f"{furthest if furthest > end else start}, and holds {begin} to {end}: records "
                f"were deleted before they were folded, or the topic was made anew. {FOLD_ANEW}"
            )
        if committed is not None and committed > start:
            log.warning(
                "commit beyond what is folded",
                topic=tp.topic,
                partition=tp.partition,
                committed=committed,
                folded=start,
            )
            # Faust would commit nothing until it is reached.
            self._committed_offset[tp] = start
        return start

    def _folded_in_table(self, tp: TP) -> int | None:
        """Return how far a source is folded, as its table says; ``None`` where it does not say."""
        table = self._table(tp)
        mark = table.folded(tp.partition)
        if mark is None:
            # An earlier version of this program kept no mark.
            return 0 if table.is_empty(tp.partition) else None
        return int(mark.offset) + 1

    def _table(self, tp: TP) -> ChunkTable:
        """Return the table that a source is folded into."""
        app = cast("Any", self.app)
        tables: Mapping[str, ChunkTable] = app.chunk_tables
        (table,) = (t for name, t in tables.items() if app.names.source_of(name) == tp.topic)
        return table

    def resume_flow(self) -> None:
        """Let records pass; those of the log only after the recovery, when their start is known.

        Not before: what reaches an agent's queue until then is cleared when the flow is resumed.
        """
        super().resume_flow()
        self._starting = self._starts is not None

    async def _start_sources(self) -> None:
        """Seek, here in the fetch loop: so no fetch of before the seek can still be under way."""
        starts = self._starts
        try:
            await self._thread.seek_wait(dict(starts or {}))
        except IllegalStateError:
            if self._starts is starts:
                raise
        # Another rebalance may have come meanwhile; its recovery finds the starts anew.
        if starts is not None and self._starts is starts:
            self._next_offset, self._starts, self._starting = starts, None, False
            self._folded_before = dict(starts)
            marks = {tp: self._table(tp).folded(tp.partition) for tp in starts}
            self._last = {
                tp: mark for tp, mark in marks.items() if mark and mark.offset + 1 == starts[tp]
            }

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        return iter(
            tp
            for tp in self.offsets.partitions()
            if topics is None or tp in topics or tp.topic in topics
        )

    def _new_offset(self, tp: TP) -> int | None:
        return self.offsets.committable(tp)

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Do nothing: chunks are counted by delivery, so holes in the offsets don't matter."""

    async def wait_empty(self) -> None:
        """Let the chunks at work finish, then commit what is done; the rest comes again."""
        self.gives_back = True
        if self.crashed:
            # The thread that would commit ends with the crash, and may never answer any more.
            return
        working = {task for task in self.at_work if task is not None}
        if working:
            _, late = await asyncio.wait(working, timeout=_FINISH_WITHIN_S)
            if late:
                self.log.warning("%d chunks did not finish in time; they come again", len(late))
        # A commit that is under way may have begun before the last chunk was done.
        await self.maybe_wait_for_commit_to_finish()
        await self.commit()

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Finish and commit, then forget: whoever gets a partition next starts at the commit."""
        await super().on_partitions_revoked(revoked)
        self._forget()

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Start from nothing in flight."""
        self._forget()
        self.gives_back = False
        await super().on_partitions_assigned(assigned, generation_id)

    def _forget(self) -> None:
        self.given_back += 1
        self.offsets.forget()
        cast("Any", self.app).writers.forget()
        self._next_offset, self._folded_before = {}, {}
        self._starts, self._starting = None, False
        for known in (self._hole, self._last, self._leader_epochs, self._compared):
            known.clear()


class Producer(driver.Producer):
    """Faust's producer, idempotent also without transactions: a retry never doubles or reorders."""

    def _settings_extra(self) -> Mapping[str, Any]:
        return {"acks": "all", "enable_idempotence": True}


class Transport(driver.Transport):
    """Plug with ``app.transport = Transport(app.conf.broker_consumer, app)``."""

    Consumer = Consumer
    Producer = Producer


class _PassThrough(codecs.Codec):
    """The values of a chunked topic are chunks already: nothing to decode."""

    def _loads(self, s: Any) -> Any:
        return s


codecs.register("chunk", _PassThrough())


def _message(chunk: Chunk) -> ConsumerMessage:
    last = chunk.records[-1]
    return ConsumerMessage(
        topic=chunk.tp.topic,
        partition=chunk.tp.partition,
        offset=last.offset,
        timestamp=last.timestamp / 1000.0,
        timestamp_type=0,
        headers=None,
        key=None,
        value=cast("Any", chunk),
        checksum=None,
        serialized_key_size=0,
        serialized_value_size=0,
        tp=chunk.tp,
        generation_id=chunk.generation,
    )
