"""Chunks: the records that an agent receives together, and the worker's right to fold them.

A chunk has the records that one fetch returned for one partition. The chunk tells its agent whether
this worker still has the partition, and reports to ``offsets`` when the work is done. If the worker
loses the partition before the work is done, the chunk never counts as done.
"""

import asyncio
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
from faust.types import TP, AppT
from faust.types.transports import ConsumerT

from processors.engine.marks import Mark
from processors.engine.offsets import ChunkOffsets
from runtime.trace_settings import TRACEPARENT

Headers = Sequence[tuple[str, bytes]]
# The attributes of the trace span of one record.
Attributes = Mapping[str, str | int]


class RevokedError(Exception):
    """This worker gave back a partition during its work; the next owner redoes the work."""


class FetchedRecord(msgspec.Struct, frozen=True, gc=False):
    """The fields of a record that a worker needs; ``timestamp`` is in Unix milliseconds.

    ``leader_epoch`` distinguishes the partition's leaders: see ``runtime.kafka.fetched``.
    ``traceparent`` is the header that names the record's trace; it is set only if this worker makes
    trace spans. ``headers`` are set only if this worker checks signatures, or if the record's
    first header is the header that ``EngineApp.marking_header`` names.

    Creating this struct takes 0.3 µs. Creating aiokafka's own record, which has twelve fields,
    takes 3 µs.
    """

    key: bytes | None
    value: bytes | None
    partition: int
    offset: int
    timestamp: int
    leader_epoch: int = -1
    traceparent: bytes | None = None
    headers: Headers = ()

    @property
    def mark(self) -> Mark:
        """The mark by which a table recognizes the record."""
        return Mark.of(self.offset, self.timestamp, self.key, self.value)

    @property
    def passed_on(self) -> Headers:
        """The headers that the record's outputs receive."""
        return () if self.traceparent is None else ((TRACEPARENT, self.traceparent),)


class ChunkConsumer(ConsumerT):
    """The part of the consumer that chunks use.

    ``gives_back`` is true while partitions are being given back, in a rebalance or at the worker's
    end. ``given_back`` is a counter that increases whenever partitions are given back or assigned.
    The generation (the number of the group's assignment) is not enough to show a change: a static
    member that rejoins may get its former generation again, but with different partitions.
    """

    app: AppT
    offsets: ChunkOffsets
    at_work: set[asyncio.Task[Any] | None]
    gives_back: bool
    given_back: int

    @abstractmethod
    async def is_member(self, generation: int) -> bool:
        """Ask the group whether this worker is a member in a generation; wait for an answer."""


class Tenure:
    """The time during which this worker has a partition, from one rebalance to the next."""

    __slots__ = ("_consumer", "generation", "given_back", "tp")

    def __init__(self, consumer: ChunkConsumer, tp: TP) -> None:
        self._consumer = consumer
        self.given_back = consumer.given_back
        self.generation: int = consumer.app.consumer_generation_id
        self.tp = tp

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.tp.topic}[{self.tp.partition}]>"

    @property
    def partition(self) -> int:
        """The partition's number."""
        return int(self.tp.partition)

    @property
    def is_ours(self) -> bool:
        """Whether this worker has kept the partition since the start of the tenure."""
        consumer = self._consumer
        is_same = self.generation == consumer.app.consumer_generation_id
        return bool(is_same and self.given_back == consumer.given_back)

    def ensure_ours(self) -> None:
        """Raise ``RevokedError`` if the partition was given back, so that the caller stops."""
        if not self.is_ours:
            raise RevokedError(repr(self))

    async def confirm_ours(self) -> None:
        """Ask the group, and raise ``RevokedError`` if another worker has the partition now.

        If this worker hangs for longer than its session timeout, the group may give the partition
        away without notice.
        """
        if not await self._consumer.is_member(self.generation):
            raise RevokedError(repr(self))
        self.ensure_ours()


class Chunk(Tenure):
    """Consecutive records of one partition, as one fetch returned them."""

    __slots__ = ("records", "traced")

    def __init__(self, consumer: ChunkConsumer, tp: TP, records: list[FetchedRecord]) -> None:
        super().__init__(consumer, tp)
        self.records = records
        # Usually no record belongs to a trace.
        self.traced = [record for record in records if record.traceparent is not None]

    def __repr__(self) -> str:
        first, last = self.records[0].offset, self.records[-1].offset
        return f"<Chunk {self.tp.topic}[{self.tp.partition}] {first}..{last}>"

    @property
    def keys(self) -> set[bytes]:
        """The distinct keys of the records."""
        return {record.key for record in self.records if record.key is not None}

    @property
    def next_offset(self) -> int:
        """The offset to commit when the chunk is done."""
        return int(self.records[-1].offset) + 1

    def halves(self) -> tuple["Chunk", "Chunk"]:
        """Return two chunks, each with half of the records; raise ``ValueError`` for one record."""
        middle = len(self.records) // 2
        if not middle:
            raise ValueError(f"{self!r} can't be halved")
        parts = self.records[:middle], self.records[middle:]
        first, second = (Chunk(self._consumer, self.tp, part) for part in parts)
        first.generation = second.generation = self.generation
        first.given_back = second.given_back = self.given_back
        return first, second

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Mark the chunk as done if the block ends without an exception.

        If the partition was given back, or is being given back, raise ``RevokedError`` before the
        block runs. If the block ran anyway, the consumer would not wait for the block's end, and
        the tables might already be closed.
        """
        self.ensure_ours()
        if self._consumer.gives_back:
            raise RevokedError(repr(self))
        task = asyncio.current_task()
        self._consumer.at_work.add(task)
        try:
            yield
            if self.is_ours:
                self._consumer.offsets.done(self.tp, self.next_offset)
        finally:
            self._consumer.at_work.discard(task)
