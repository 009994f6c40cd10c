"""Appends through one producer: what arrives while a batch is under way goes out in the next one.

In: records, each with the time by which it must be acknowledged. Out: for each a future, done with
the record's place once every replica in sync has it, or failed with ``LogUnavailableError``. Never:
a record that waits beyond its time, or two batches of one partition at a time, which is what keeps
its records in the order of their arrival.

A batch is never larger than its topic takes, by the last look at the topics. A batch that is
refused for its size goes out again in parts, and a record that is too large alone fails alone.

aiokafka's own ``send`` does for each record what has to be done once for a batch: a look for the
topic, a queue, a task and timers. Here a loop turn's records of a partition become one batch.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

import structlog
from aiokafka.errors import (
    InvalidTimestampError,
    KafkaError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
)
from aiokafka.producer.message_accumulator import BatchBuilder

from ingest.producer import LogProducer
from ingest.records import NewRecord
from ledger.records import Place
from runtime.kafka.partitions import partition_for
from runtime.kafka.topic_states import TIME_REFUSED, size_fault

_log = structlog.get_logger(__name__)

_TOO_SLOW: Final = "Kafka did not acknowledge in time"


class LogUnavailableError(Exception):
    """The log did not acknowledge a record; the text says why, to whoever sent the delivery."""


class _Append(NamedTuple):
    """A record on its way; ``until`` is a time of the event loop's clock."""

    record: NewRecord
    until: float
    kept: asyncio.Future[Place]


class Appends:
    """All records that are on their way through one producer.

    ``partitions`` is how many each topic has, and ``limits_bytes`` how large a batch each one
    takes. The first failure but a refusal for its size, whatever it is, fails them all, and
    ``lost`` hears of it: what one producer has not acknowledged by then, another one must.
    ``ends`` has how far each partition was acknowledged by this producer and those before it.
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
        # One timer for all records: each only says when the next look is due at the latest.
        self._timer: asyncio.TimerHandle | None = None
        self._look_at = float("inf")

    def append(self, record: NewRecord, until: float) -> asyncio.Future[Place]:
        """Take a record; the future is done once it is acknowledged, by ``until`` at the latest."""
        kept: asyncio.Future[Place] = self._loop.create_future()
        if self._failed is not None:
            kept.set_exception(LogUnavailableError(self._failed))
            return kept
        self._lane(record).put(_Append(record, until, kept))
        if until < self._look_at:
            self._look_not_after(until)
        return kept

    def bound(self, limits_bytes: Mapping[str, int]) -> None:
        """Keep to these limits from the next batch on."""
        self._limits_bytes.update(limits_bytes)

    def fail(self, reason: str) -> None:
        """Fail every record that is not acknowledged, and those that come from now on."""
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
        """Fail if a record's time is over; else look again when the next one's will be."""
        self._timer = None
        self._look_at = float("inf")
        due = min((lane.due() for lane in self._lanes.values()), default=float("inf"))
        if due <= self._loop.time():
            self.fail(_TOO_SLOW)
        elif due < float("inf"):
            self._look_not_after(due)


class _Lane:
    """The records of one partition: a batch under way, and those that wait for the next one."""

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
        # Shared with the topic's other lanes.
        self._limits_bytes = limits_bytes
        self._ends = ends
        self._failed = failed
        self._waiting: deque[_Append] = deque()
        self._under_way: list[_Append] = []
        self._writing: asyncio.Task[None] | None = None

    def put(self, append: _Append) -> None:
        """Queue a record. A task begins in the loop's next turn: all of this turn go together."""
        self._waiting.append(append)
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())

    def due(self) -> float:
        """Return when the first of its records must be acknowledged; infinity without any."""
        return min(
            (each.until for some in (self._under_way, self._waiting) for each in some),
            default=float("inf"),
        )

    def fail(self, reason: str) -> None:
        """Fail every record, and write no more."""
        if self._writing is not None:
            self._writing.cancel()
        for some in (self._under_way, self._waiting):
            for each in some:
                if not each.kept.done():
                    each.kept.set_exception(LogUnavailableError(reason))
        self._under_way = []
        self._waiting.clear()

    async def _write(self) -> None:
        """Write batch after batch until none waits."""
        try:
            while self._waiting:
                batch = self._fill()
                size_bytes = batch.size()
                # Only a batch of one record can be that large.
                if size_bytes > self._limits_bytes[self._topic]:
                    self._refuse(size_bytes)
                    continue
                try:
                    acknowledged = await self._producer.send_batch(
                        batch, self._topic, partition=self._partition
                    )
                    self._keep(int((await acknowledged).offset))
                except (MessageSizeTooLargeError, RecordListTooLargeError):
                    self._make_smaller(size_bytes)
        except BaseException as error:
            # Not only KafkaError, since aiokafka also fails by assertions, and cancels what waits:
            # whatever it was, the records are not acknowledged, and a new producer is the remedy.
            is_of_clock = isinstance(error, InvalidTimestampError)
            self._failed(TIME_REFUSED if is_of_clock else f"Kafka failed: {type(error).__name__}")
            if not isinstance(error, Exception):
                raise
        finally:
            self._writing = None

    def _fill(self) -> BatchBuilder:
        """Make a batch of what waits, as far as it fits; the first record always does.

        aiokafka's own ``append`` calls two functions in Python for each record; what it calls in
        the end is called here.
        """
        batch = self._producer.create_batch_for(self._limits_bytes[self._topic])
        append, waiting, under_way = batch._builder.append, self._waiting, self._under_way  # noqa: SLF001
        while waiting:
            _, key, value, headers, timestamp_ms = waiting[0].record
            if append(len(under_way), timestamp_ms, key, value, headers) is None:
                break
            under_way.append(waiting.popleft())
        batch._relative_offset = len(under_way)  # noqa: SLF001 - its number of records
        return batch

    def _refuse(self, size_bytes: int) -> None:
        """Fail the one record of a batch that is larger than the topic takes."""
        fault = size_fault(self._topic, self._limits_bytes[self._topic], size_bytes)
        for each in self._under_way:
            if not each.kept.done():
                each.kept.set_exception(LogUnavailableError(str(fault)))
        self._under_way = []

    def _make_smaller(self, refused_bytes: int) -> None:
        """Write the records of a refused batch again, in smaller ones.

        Whoever lowered the topic's limit did it after the last look. The next look brings the limit
        itself; until then, whatever is half as large is tried.
        """
        alone = len(self._under_way) == 1
        self._limits_bytes[self._topic] = refused_bytes - 1 if alone else refused_bytes // 2
        self._waiting.extendleft(reversed(self._under_way))
        self._under_way = []
        self._producer.renew_identity()

    def _keep(self, first_offset: int) -> None:
        """Tell those whose records are acknowledged; some may have been cancelled meanwhile."""
        if first_offset < 0:
            # A broker that has a batch twice may not say where; a sender that asks again is told.
            raise KafkaError("the batch is kept, and nobody says where")
        self._compare(first_offset)
        for offset, each in enumerate(self._under_way, first_offset):
            if not each.kept.done():
                each.kept.set_result(Place(self._partition, offset))
        self._under_way = []

    def _compare(self, first_offset: int) -> None:
        """Say so if a batch stands where records were acknowledged: the topic has lost those."""
        end = self._ends.get(self._place, 0)
        if first_offset < end:
            _log.error(
                "acknowledged_records_lost",
                topic=self._topic,
                partition=self._partition,
                lost=f"offsets {first_offset} to {end - 1}",
                remedy=(
                    "stop the workers, and bring the records back from a replica or a backup; "
                    "else `plexy-ledger rebuild`"
                ),
            )
        self._ends[self._place] = first_offset + len(self._under_way)
