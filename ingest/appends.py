"""Appends records through one producer; records that arrive during a write share the next batch.

Input: records, each with a deadline. Output: a future for each record. The future returns the
record's place (partition and offset) once all in-sync replicas have the record, or raises
``LogUnavailableError``. Invariants: no record waits beyond its deadline; a partition has at most
one batch under way, so the order of the records is kept.

A batch never exceeds the size limit that its topic had when the topics were last examined. A batch
that is refused for its size is sent again in parts. If a single record is too large, it fails.

aiokafka's own ``send`` looks up the topic and starts a task and timers for every record. This
module does so once per batch: a partition's records of one turn of the event loop become one batch.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

import structlog
from aiokafka.errors import InvalidTimestampError, KafkaError
from aiokafka.producer.message_accumulator import BatchBuilder

from ingest.producer import LogProducer
from ingest.records import NewRecord
from ledger.records import Place
from runtime.kafka.batches import TOO_LARGE
from runtime.kafka.internals import appender, seal
from runtime.kafka.partitions import partition_for
from runtime.kafka.topic_states import TIME_REFUSED, size_fault

_log = structlog.get_logger(__name__)

_TOO_SLOW: Final = "Kafka did not acknowledge in time"


class LogUnavailableError(Exception):
    """The log did not acknowledge a record; the text tells the sender why."""


class _Append(NamedTuple):
    """A record that is not acknowledged yet; ``until`` is a time on the event loop's clock."""

    record: NewRecord
    until: float
    kept: asyncio.Future[Place]


class Appends:
    """The records of one producer that Kafka has not acknowledged yet.

    ``partitions`` is each topic's number of partitions, and ``limits_bytes`` has the largest batch
    that each topic accepts. If a record is too large, only this record fails. Any other failure
    fails all records and calls ``lost``, because only a new producer can continue. ``ends``
    contains, for each partition, the offset after the last acknowledged record, whichever producer
    wrote it.
    """

    def __init__(
        self,
        producer: LogProducer,
        partitions: int,
        limits_bytes: Mapping[str, int],
        lost: Callable[[str], None],
        ends: dict[tuple[str, int], int] | None = None,
    ) -> None:
        self._ends = {} if ends is None else ends
        self._producer = producer
        self._partitions = partitions
        self._limits_bytes = dict(limits_bytes)
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._lanes: dict[tuple[str, int], _Lane] = {}
        self._failed: str | None = None
        # All records share one timer, which is due at their earliest deadline.
        self._timer: asyncio.TimerHandle | None = None
        self._look_at = float("inf")

    def append(self, record: NewRecord, until: float) -> asyncio.Future[Place]:
        """Queue a record; return a future for its place.

        The future succeeds when Kafka acknowledges the record, and fails at ``until`` or earlier.
        """
        kept: asyncio.Future[Place] = self._loop.create_future()
        if self._failed is not None:
            kept.set_exception(LogUnavailableError(self._failed))
            return kept
        self._lane(record).put(_Append(record, until, kept))
        if until < self._look_at:
            self._look_not_after(until)
        return kept

    def bound(self, limits_bytes: Mapping[str, int]) -> None:
        """Apply these limits from the next batch on."""
        self._limits_bytes.update(limits_bytes)

    def fail(self, reason: str) -> None:
        """Fail every record that is not acknowledged, and all later records."""
        if self._failed is not None:
            return
        self._failed = reason
        if self._timer is not None:
            self._timer.cancel()
        for lane in self._lanes.values():
            lane.fail(reason)
        self._lanes.clear()
        self._lost(reason)

    def _lane(self, record: NewRecord) -> "_Lane":
        partition = partition_for(record.key, self._partitions)
        place = (record.topic, partition)
        lane = self._lanes.get(place)
        if lane is None:
            lane = self._lanes[place] = _Lane(
                self._producer, place, self._limits_bytes, self.fail, self._ends
            )
        return lane

    def _look_not_after(self, until: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._look_at = until
        self._timer = self._loop.call_at(until, self._look)

    def _look(self) -> None:
        """Fail if a record's deadline has passed; otherwise look again at the next deadline."""
        self._timer = None
        self._look_at = float("inf")
        due = min((lane.due() for lane in self._lanes.values()), default=float("inf"))
        if due <= self._loop.time():
            self.fail(_TOO_SLOW)
        elif due < float("inf"):
            self._look_not_after(due)


class _Lane:
    """The records of one partition: a batch under way, and the records for the next batch."""

    def __init__(
        self,
        producer: LogProducer,
        place: tuple[str, int],
        limits_bytes: dict[str, int],
        failed: Callable[[str], None],
        ends: dict[tuple[str, int], int],
    ) -> None:
        self._producer = producer
        self._topic, self._partition = self._place = place
        # All lanes share this mapping.
        self._limits_bytes = limits_bytes
        self._ends = ends
        self._failed = failed
        self._waiting: deque[_Append] = deque()
        self._under_way: list[_Append] = []
        self._writing: asyncio.Task[None] | None = None

    def put(self, append: _Append) -> None:
        """Queue a record. Writing starts in the next turn, so this turn's records share a batch."""
        self._waiting.append(append)
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())

    def due(self) -> float:
        """Return the earliest deadline of a record; infinity if there is no record."""
        return min(
            (each.until for some in (self._under_way, self._waiting) for each in some),
            default=float("inf"),
        )

    def fail(self, reason: str) -> None:
        """Fail every record, and stop writing."""
        if self._writing is not None:
            self._writing.cancel()
        for some in (self._under_way, self._waiting):
            for each in some:
                if not each.kept.done():
                    each.kept.set_exception(LogUnavailableError(reason))
        self._under_way = []
        self._waiting.clear()

    async def _write(self) -> None:
        """Write batch after batch until no record waits."""
        try:
            while self._waiting:
                batch = self._fill()
                size_bytes = batch.size()
                # Only a batch with a single record can exceed the limit.
                if size_bytes > self._limits_bytes[self._topic]:
                    self._refuse(size_bytes)
                    continue
                try:
                    acknowledged = await self._producer.send_batch(
                        batch, self._topic, partition=self._partition
                    )
                    self._keep(int((await acknowledged).offset))
                except TOO_LARGE:
                    self._make_smaller(size_bytes)
        except BaseException as error:
            # aiokafka may also raise AssertionError, or cancel waiting futures. After any error,
            # the records are not acknowledged, and a new producer is needed.
            is_of_clock = isinstance(error, InvalidTimestampError)
            self._failed(TIME_REFUSED if is_of_clock else f"Kafka failed: {type(error).__name__}")
            if not isinstance(error, Exception):
                raise
        finally:
            self._writing = None

    def _fill(self) -> BatchBuilder:
        """Return a batch of the waiting records that fit; the first record always fits."""
        batch = self._producer.create_batch_for(self._limits_bytes[self._topic])
        append, waiting, under_way = appender(batch), self._waiting, self._under_way
        while waiting:
            _, key, value, headers, timestamp_ms = waiting[0].record
            if append(len(under_way), timestamp_ms, key, value, headers) is None:
                break
            under_way.append(waiting.popleft())
        seal(batch, len(under_way))
        return batch

    def _refuse(self, size_bytes: int) -> None:
        """Fail the only record of a batch that is larger than the topic accepts."""
        fault = size_fault(self._topic, self._limits_bytes[self._topic], size_bytes)
        for each in self._under_way:
            if not each.kept.done():
                each.kept.set_exception(LogUnavailableError(str(fault)))
        self._under_way = []

    def _make_smaller(self, refused_bytes: int) -> None:
        """Queue the records of a refused batch again, for smaller batches.

        The topic's limit was lowered after the topics were last examined. Until the new limit is
        read, half the refused size is tried.
        """
        alone = len(self._under_way) == 1
        self._limits_bytes[self._topic] = refused_bytes - 1 if alone else refused_bytes // 2
        self._waiting.extendleft(reversed(self._under_way))
        self._under_way = []
        self._producer.renew_identity()

    def _keep(self, first_offset: int) -> None:
        """Give each acknowledged record's future the record's place; skip cancelled futures."""
        if first_offset < 0:
            # A broker may leave out the offset of a batch that it receives twice. These deliveries
            # then fail. Plexy retries them, and the retries get a place.
            raise KafkaError("the batch is kept, but Kafka did not report its offset")
        self._compare(first_offset)
        for offset, each in enumerate(self._under_way, first_offset):
            if not each.kept.done():
                each.kept.set_result(Place(self._partition, offset))
        self._under_way = []

    def _compare(self, first_offset: int) -> None:
        """Log that acknowledged records are lost, if a new batch has their offsets."""
        end = self._ends.get(self._place, 0)
        if first_offset < end:
            _log.error(
                "acknowledged_records_lost",
                topic=self._topic,
                partition=self._partition,
                lost=f"offsets {first_offset} to {end - 1}",
                remedy=(
                    "stop the workers, and restore the records from a replica or a backup; "
                    "otherwise use `plexy-ledger rebuild`"
                ),
            )
        self._ends[self._place] = first_offset + len(self._under_way)
