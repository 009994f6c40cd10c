"""Chunks: the records that an agent is handed, and whether this worker still holds the partition.

Input: the records that one fetch returned of one partition. Output: whether the partition is still
this worker's, and, when the work on the chunk has ended, that the chunk is done. A chunk is never
done by a worker that had lost the partition.
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
# What a span says about the record that it belongs to.
Attributes = Mapping[str, str | int]


class RevokedError(Exception):
    """The partition was given back while its chunk was at work; its next owner does it again."""


class FetchedRecord(msgspec.Struct, frozen=True, gc=False):
    """What a worker needs of a record; ``timestamp`` is in Unix milliseconds.

    ``leader_epoch`` tells the partition's leaders apart: see ``runtime.kafka.fetched``.
    ``traceparent`` is the header that names its trace, where this worker traces; ``headers`` are
    all of the record's, where this worker checks signatures.

    aiokafka's own has twelve fields in a frozen dataclass, and takes 3 µs to make, this one 0.3.
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
        """What a table remembers of it."""
        return Mark.of(self.offset, self.timestamp, self.key, self.value)

    @property
    def passed_on(self) -> Headers:
        """The headers of what follows from it."""
        return () if self.traceparent is None else ((TRACEPARENT, self.traceparent),)


class ChunkConsumer(ConsumerT):
    """What a chunk needs of the consumer that fetched it.

    ``gives_back`` is set while partitions are given back, as in a rebalance or at the worker's end.
    ``given_back`` counts how often that was. A static member that joins again may get its former
    generation with other partitions.
    """

    app: AppT
    offsets: ChunkOffsets
    at_work: set[asyncio.Task[Any] | None]
    gives_back: bool
    given_back: int

    @abstractmethod
    async def is_member(self, generation: int) -> bool:
        """Ask the group whether we are a member of this generation of it, until it answers."""


class Tenure:
    """One partition as this worker holds it, from one rebalance to the next."""

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
        """Whether the partition is still assigned to this worker, as it was at the start."""
        consumer = self._consumer
        is_same = self.generation == consumer.app.consumer_generation_id
        return bool(is_same and self.given_back == consumer.given_back)

    def ensure_ours(self) -> None:
        """Raise ``RevokedError`` if the partition was given back: then nothing may be written."""
        if not self.is_ours:
            raise RevokedError(repr(self))

    async def confirm_ours(self) -> None:
        """Ask the group itself: it may have given the partition to others, and we don't know yet.

        Raises ``RevokedError`` if it has, as when this worker stood still for its whole session.
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
        # Those that belong to a trace: mostly none.
        self.traced = [record for record in records if record.traceparent is not None]

    def __repr__(self) -> str:
        first, last = self.records[0].offset, self.records[-1].offset
        return f"<Chunk {self.tp.topic}[{self.tp.partition}] {first}..{last}>"

    @property
    def keys(self) -> set[bytes]:
        """The records' keys, each once."""
        return {record.key for record in self.records if record.key is not None}

    @property
    def next_offset(self) -> int:
        """What to commit when the chunk is done."""
        return int(self.records[-1].offset) + 1

    def halves(self) -> tuple["Chunk", "Chunk"]:
        """Return the chunk in two parts; ``ValueError`` for a single record."""
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
        """Work on the chunk: it is done if the block ends, and is not if the block raises.

        Raises ``RevokedError`` if the partition was, or is being, given back: nobody waits for work
        that begins then, and its tables may be closed.
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
