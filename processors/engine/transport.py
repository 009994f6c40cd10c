"""The chunked transport: Faust's Kafka transport, with one Faust event per chunk of a partition.

Input: records from Kafka. Output: ``Chunk`` values to agents, and commits to Kafka. Invariant: no
offset after an unfinished chunk is committed. The topics are declared with ``acks=False``, so that
Faust's own acknowledgements have no effect (Faust 0.15.3 also acknowledges an event whose agent
raised an exception). ``processors.engine.recovery`` reads the changelogs.

A plain Faust stream needs two tasks and a wait for each record; this transport needs them once for
each chunk.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Iterable, Mapping
from functools import partial
from typing import Any, Final

from aiokafka.errors import ConsumerStoppedError, IllegalStateError
from aiokafka.structs import TopicPartition
from faust.serializers import codecs
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, AppT
from faust.types.tuples import ConsumerMessage

from processors.engine.app import EngineApp
from processors.engine.chunk import Chunk, ChunkConsumer, FetchedRecord
from processors.engine.fetcher import (
    Make,
    marked,
    record_of,
    record_with_headers,
    traced_record,
)
from processors.engine.internals import FaustConsumer
from processors.engine.membership import SESSION_TIMEOUT_S, ask_group, clock_s, heed_fencing
from processors.engine.offsets import ChunkOffsets
from processors.engine.positions import (
    REBUILD,
    LostRecordsError,
    Position,
    other_record,
    starting,
)
from runtime.kafka.internals import coordinator_of

# One chunk in progress and one waiting chunk keep a partition busy. More chunks would only add
# latency.
_MAX_IN_FLIGHT: Final = 2
# While a partition has no room for a chunk, a fetch from other partitions waits at most this long,
# so that the full partition is soon considered again.
_BUSY_POLL_S: Final = 0.02
# When partitions are revoked or the worker stops, chunks in progress have this long to finish.
_FINISH_WITHIN_S: Final = 8.0
# If the group does not answer, for example because its broker restarts, the consumer asks again
# after this time.
_ASK_AGAIN_S: Final = 0.2

heed_fencing()


class Consumer(FaustConsumer, ChunkConsumer):
    """Faust's consumer, with chunks in place of records."""

    app: EngineApp

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.offsets = ChunkOffsets()
        self.at_work: set[asyncio.Task[Any] | None] = set()
        self.gives_back = False
        self.given_back = 0
        # The position of each partition that is being read.
        self._positions: dict[TP, Position] = {}
        # The positions at which to start, until the fetch loop seeks to them after a recovery.
        self._starts: dict[TP, Position] | None = None
        self._starting = False
        # The partitions whose tables have lost records, and the offsets up to which these
        # partitions were folded before.
        self._had: dict[TP, int] = {}
        # The last time at which this worker was certainly a member of its group: at this time, the
        # worker sent the question that the group answered with yes.
        self._confirmed_s = -math.inf

    def maker(self, tp: TopicPartition) -> Make:
        """Return the function that makes a partition's records with the headers the fold needs."""
        if most := self.app.headers_read(tp.topic):
            return partial(record_with_headers, most)
        make = record_of if self.app.spans is None else traced_record
        mark = self.app.marking_header(tp.topic)
        return make if mark is None else marked(mark, make)

    async def is_member(self, generation: int) -> bool:
        """Ask the group whether this worker is a member in a generation; wait for an answer.

        The question is a request of its own. The consumer's heartbeat asks the same question, but
        the consumer acts on the answer to its heartbeat.
        """
        coordinator = coordinator_of(self.client)
        while generation == self.app.consumer_generation_id:
            asked_s = clock_s()
            try:
                said = await self.on_thread(ask_group, coordinator, generation)
            except ConsumerStoppedError:
                return False
            if said is not None:
                self._confirmed_s = asked_s if said else -math.inf
                return bool(said)
            await asyncio.sleep(_ASK_AGAIN_S)
        return False

    async def subscribe(self, topics: Iterable[str]) -> None:
        """Join the group with all topics, or not at all.

        The group's leader assigns a source and its changelog to the same worker only if all members
        have subscribed to the same topics. Without this check, a worker that is stopped during its
        start could join with too few topics.
        """
        sources = {table.source for table in self.app.chunk_tables.values()}
        if missing := {*sources, *self.app.tables.changelog_topics} - set(topics):
            self.log.warning(
                "not joined: stopped before subscribing to %s", ", ".join(sorted(missing))
            )
            return
        await super().subscribe(topics)

    @property
    def is_surely_member(self) -> bool:
        """Whether the group has certainly not given this worker's partitions to others.

        The group reassigns a worker's partitions if it receives no heartbeat from the worker for
        the length of the session timeout. A worker that was suspended, or that can't reach Kafka,
        is not told of the reassignment.
        """
        return clock_s() - self._confirmed_s < SESSION_TIMEOUT_S

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, ConsumerMessage]]:  # noqa: ASYNC109
        """Yield one message for each fetched partition, with all its fetched records."""
        records, active = await self.next_fetched(timeout)
        for tp, fetched in (records or {}).items():
            if self.should_stop or not self.flow_active:
                return
            if not fetched or not (active is None or tp in active):
                continue
            if chunk := await self._next_chunk(tp, fetched):
                yield tp, _message(chunk)

    async def fetch(self, partitions: set[TP] | None, timeout_s: float) -> Any:
        """Fetch from the partitions that have room for a chunk."""
        if partitions is None:
            return await super().fetch(None, timeout_s)
        if self._starting:
            await self._start_sources()
        started = partitions & self._positions.keys()
        free = {tp for tp in started if self.offsets.in_flight(tp) < _MAX_IN_FLIGHT}
        if not free:
            await asyncio.sleep(_BUSY_POLL_S)
            return {}
        wait_s = timeout_s if len(free) == len(partitions) else _BUSY_POLL_S
        return await super().fetch(free, wait_s)

    async def _next_chunk(self, tp: TP, records: list[FetchedRecord]) -> Chunk | None:
        """Return the records as a chunk if they are the next records of their partition.

        Faust drops fetched records in some states. A commit beyond dropped records would lose them.
        So if the records begin after the expected offset, they are dropped, and the partition is
        fetched again from the expected offset. If the next fetch has the same gap, the gap is in
        the log itself, and is skipped. For example, a transaction's marker has an offset but is not
        a record.
        """
        position = self._positions.get(tp)
        if position is None:
            return None
        expected = position.next
        if position.compared_epoch is not None or position.leader_epoch != records[-1].leader_epoch:
            if not await self._is_same_log(tp, position, records):
                return None
            records = [record for record in records if record.offset >= expected]
            if not records:
                return None
        first = records[0].offset
        if first < expected:
            # The log's end was below the client's position, so the client began to read from the
            # log's beginning again. Without this error, records that are appended between that end
            # and the position would never be folded.
            raise LostRecordsError(
                f"{tp.topic}[{tp.partition}] was read up to offset {expected}, but now has other "
                f"records from {first} on: the topic lost records. {REBUILD}"
            )
        if first > expected and position.gap != (expected, first):
            self.log.info("%s: got offset %d, expected %d: fetch again", tp, first, expected)
            position.gap = expected, first
            await self.seek_wait({tp: expected})
            return None
        if first > expected and (begin := (await self.earliest_offsets(tp))[tp]) > expected:
            raise LostRecordsError(
                f"{tp.topic}[{tp.partition}] was read up to offset {expected}, but now begins "
                f"at {begin}: records were deleted before they were folded. {REBUILD}"
            )
        chunk = Chunk(self, tp, records)
        position.next, position.last = chunk.next_offset, records[-1].mark
        self.offsets.delivered(tp, chunk.next_offset, records[0].timestamp)
        return chunk

    async def _is_same_log(self, tp: TP, position: Position, records: list[FetchedRecord]) -> bool:
        """Return whether the fetched records belong to the log that was read so far.

        If the partition has a new leader, seek to the last record that was read, and return
        ``False``. Then that record is fetched again and compared. Raise ``LostRecordsError`` if the
        log has a different record at that offset now.

        A new leader may lack records, and continues at its own end. So it may write different
        records at offsets that were already read. Each leader writes in its own epoch. While an
        epoch lasts, the leader loses no record of that epoch.
        """
        last, epoch = position.last, records[-1].leader_epoch
        if last is not None and position.compared_epoch is None:
            position.compared_epoch = epoch
            await self.seek_wait({tp: last.offset})
            return False
        # If Kafka deleted the last record because of its age, the log begins after that record, so
        # nothing is compared.
        if last is not None and records[0].offset <= last.offset and records[0].mark != last:
            raise other_record(tp, last)
        # The fetch may have returned only the compared record, and its epoch may be older than the
        # new leader's epoch.
        compared, position.compared_epoch = position.compared_epoch, None
        position.leader_epoch = epoch if compared is None else compared
        return True

    def folded(self, tp: TP) -> int | None:
        """Return the offset below which a partition is folded; ``None`` if no position is known."""
        done, position = self.offsets.committable(tp), self._positions.get(tp)
        return position.start if done is None and position else done

    def refolding(self) -> str | None:
        """Return a text about a partition that is being folded again, or ``None``.

        The table of such a partition lacks records that it once had.
        """
        for tp, had in [*self._had.items()]:
            at = self.folded(tp) or 0
            if at < had:
                return f"{tp.topic}[{tp.partition}] is at offset {at} of {had}"
            del self._had[tp]
        return None

    def lag(self, tp: TP) -> int | None:
        """Return how many records below the source's end are not folded; ``None`` if unknown."""
        folded = self.folded(tp)
        if folded is None or tp not in self.assignment():
            return None
        end: int | None = self.highwater(tp)
        return None if end is None else max(end - folded, 0)

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Return each partition's committed offset or, if lower, the partition's start offset.

        Faust never commits an offset that is lower than the offset returned here.
        """
        commits: dict[TP, Any] = {**await super().seek_to_committed()}
        changelogs = self.app.tables.changelog_topics
        sources = {tp for tp in self.assignment() if tp.topic not in changelogs}
        if sources:
            begins = await self.earliest_offsets(*sources)
            ends = await self.highwaters(*sources)
            self._starts = {
                tp: starting(
                    tp,
                    self.app.table_of(tp.topic),
                    commits.get(tp) or None,
                    (begins[tp], ends[tp]),
                    kept_forever=tp.topic == self.app.kept_forever,
                )
                for tp in sources
            }
            for tp, at in self._starts.items():
                commits[tp] = commits.get(tp) and min(commits[tp], at.start)
                # The committed offset is about to be lowered, so the table stores how far the
                # source was folded before.
                self.app.table_of(tp.topic).note_had(tp.partition, at.had)
            self._had = {tp: at.had for tp, at in self._starts.items() if at.had}
        return commits

    def resume_flow(self) -> None:
        """Let records pass to the agents, and start the sources if their positions are known.

        The sources do not start earlier, because this call discards the records in the agents'
        queues.
        """
        super().resume_flow()
        self._starting = self._starts is not None

    async def _start_sources(self) -> None:
        """Seek from within the fetch loop, so that no earlier fetch can still be in progress."""
        starts = self._starts
        try:
            await self.seek_wait({tp: each.start for tp, each in (starts or {}).items()})
        except IllegalStateError:
            if self._starts is starts:
                raise
        # After another rebalance, the recovery determines the positions again.
        if starts is not None and self._starts is starts:
            self._positions, self._starts, self._starting = starts, None, False

    async def wait_empty(self) -> None:
        """Let the chunks in progress finish, then commit the finished chunks."""
        self.gives_back = True
        if self.crashed:
            # A commit needs the consumer's thread. That thread ends with the crash, and may never
            # answer.
            return
        working = {task for task in self.at_work if task is not None}
        if working:
            _, late = await asyncio.wait(working, timeout=_FINISH_WITHIN_S)
            if late:
                self.log.warning("%d chunks did not finish in time; they are redone", len(late))
        # If a commit is in progress, it may have begun before the last chunk was done. So another
        # commit follows it.
        await self.maybe_wait_for_commit_to_finish()
        await self.commit()

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Finish, commit and forget all chunks; the next owner starts at the committed offset."""
        await super().on_partitions_revoked(revoked)
        self._forget()

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Begin the new assignment with no chunks in flight."""
        self._forget()
        self.gives_back = False
        await super().on_partitions_assigned(assigned, generation_id)

    def _forget(self) -> None:
        self.given_back += 1
        self.offsets.forget()
        self.app.writers.forget()
        self._positions, self._starts, self._starting = {}, None, False
        self._had = {}


class Transport(driver.Transport):
    """The transport, set by ``app.transport = Transport(app.conf.broker_consumer, app)``."""

    Consumer = Consumer


class _Undecoded(codecs.Codec):
    """The codec of a topic whose values are already chunks."""

    def loads(self, s: Any) -> Any:
        """Return the value as it is."""
        return s


codecs.register("chunk", _Undecoded())


def chunked(app: AppT, topic: str) -> Any:
    """Declare a topic whose values are chunks, and whose offsets Faust does not acknowledge."""
    return app.topic(topic, key_type=bytes, value_serializer="chunk", acks=False)


def _message(chunk: Any) -> ConsumerMessage:
    last: FetchedRecord = chunk.records[-1]
    return ConsumerMessage(
        topic=chunk.tp.topic,
        partition=chunk.tp.partition,
        offset=last.offset,
        timestamp=last.timestamp / 1000.0,
        timestamp_type=0,
        headers=None,
        key=None,
        value=chunk,
        checksum=None,
        serialized_key_size=0,
        serialized_value_size=0,
        tp=chunk.tp,
        generation_id=chunk.generation,
    )
