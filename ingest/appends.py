"""Appends through one producer: what arrives while a batch is under way goes out in the next one.

In: records, each with the time by which it must be acknowledged. Out: for each a future, done with
the record's place once every replica in sync has it, or failed with ``LogUnavailableError``. Never:
a record that waits beyond its time, or two batches of one partition at a time, which is what keeps
its records in the order of their arrival.

aiokafka's own ``send`` does for each record what has to be done once for a batch: a look for the
topic, a queue, a task and timers. Here a loop turn's records of a partition become one batch.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.errors import InvalidTimestampError, KafkaError
from aiokafka.producer.message_accumulator import BatchBuilder

from ingest.records import Record
from runtime.partitions import partition_for
from runtime.topic_states import TIME_REFUSED

_TOO_SLOW: Final = "Kafka did not acknowledge in time"


class LogUnavailableError(Exception):
    """The log did not acknowledge a record; the text says why, to whoever sent the delivery."""


class Place(NamedTuple):
    """Where a record stands in its topic."""

    partition: int
    offset: int


class _Append(NamedTuple):
    """A record on its way; ``until`` is a time of the event loop's clock."""

    record: Record
    until: float
    kept: asyncio.Future[Place]


class Appends:
    """All records that are on their way through one producer.

    ``partitions`` is how many each topic has. The first failure, whatever it is, fails them all,
    and ``lost`` hears of it: what one producer has not acknowledged by then, another one must.
    """

    def __init__(
        self,
        producer: AIOKafkaProducer,
        partitions: Mapping[str, int],
        lost: Callable[[str], None],
    ) -> None:
        self._producer = producer
        self._partitions = partitions
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._lanes: dict[tuple[str, int], _Lane] = {}
        self._failed: str | None = None
        # One timer for all records: each only says when the next look is due at the latest.
        self._timer: asyncio.TimerHandle | None = None
        self._look_at = float("inf")

    def append(self, record: Record, until: float) -> asyncio.Future[Place]:
        """Take a record; the future is done once it is acknowledged, by ``until`` at the latest."""
        kept: asyncio.Future[Place] = self._loop.create_future()
        if self._failed is not None:
            kept.set_exception(LogUnavailableError(self._failed))
            return kept
        self._lane(record).put(_Append(record, until, kept))
        if until < self._look_at:
            self._look_not_after(until)
        return kept

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

    def _lane(self, record: Record) -> "_Lane":
        partition = partition_for(record.key, self._partitions[record.topic])
        place = (record.topic, partition)
        lane = self._lanes.get(place)
        if lane is None:
            lane = self._lanes[place] = _Lane(self._producer, *place, self.fail)
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
        producer: AIOKafkaProducer,
        topic: str,
        partition: int,
        failed: Callable[[str], None],
    ) -> None:
        self._producer = producer
        self._topic = topic
        self._partition = partition
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
                acknowledged = await self._producer.send_batch(
                    self._fill(), self._topic, partition=self._partition
                )
                self._keep(int((await acknowledged).offset))
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
        batch = self._producer.create_batch()
        append, waiting, under_way = batch._builder.append, self._waiting, self._under_way  # noqa: SLF001
        while waiting:
            _, key, value, headers, timestamp_ms = waiting[0].record
            if append(len(under_way), timestamp_ms, key, value, headers) is None:
                break
            under_way.append(waiting.popleft())
        batch._relative_offset = len(under_way)  # noqa: SLF001 - its number of records
        return batch

    def _keep(self, first_offset: int) -> None:
        """Tell those whose records are acknowledged; some may have been cancelled meanwhile."""
        if first_offset < 0:
            # A broker that has a batch twice may not say where; a sender that asks again is told.
            raise KafkaError("the batch is kept, and nobody says where")
        for offset, each in enumerate(self._under_way, first_offset):
            if not each.kept.done():
                each.kept.set_result(Place(self._partition, offset))
        self._under_way = []
