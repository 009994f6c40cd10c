"""Reads changelogs, each from the offset up to which its table has already applied it.

Input: the first offset to read in each partition. Output: chunks, each with the offset from which
it was fetched, so that a table can distinguish lost records from a gap that compaction left.

The reader has its own Kafka client. The client belongs to no consumer group, and only this reader
changes the client's positions. So no rebalance, pause or queue of Faust can drop a chunk between
the client and the tables.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final

import msgspec
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaTimeoutError, OffsetOutOfRangeError
from aiokafka.structs import TopicPartition
from faust.types import TP

from processors.engine.fetcher import record_of
from processors.engine.marks import Mark
from processors.engine.tables import ChangelogChunk
from runtime.kafka.connection import KafkaSettings
from runtime.kafka.internals import fetch_as, fetching

# A fetch returns at most this many bytes of a partition. If the first record alone is larger, the
# fetch returns this record.
_FETCH_BYTES: Final = 1024 * 1024
# A broker may delay an empty answer for this long.
_FETCH_MAX_WAIT_MS: Final = 500
# One step of the event loop decodes and applies up to this many records, in about 10 ms.
_MOST_RECORDS: Final = 2000
_LOOK_WAIT_S: Final = 0.5

_Offsets = dict[TopicPartition, int]


class ChangelogLostError(Exception):
    """A changelog no longer has the offset at which its table ends; the text names the offsets."""


class Found(msgspec.Struct, frozen=True):
    """A partition's first offset, its end, and the mark of the record that was looked up.

    ``mark`` identifies the record at the offset that was looked up or, if compaction has removed
    this record, the next record. ``mark`` is ``None`` if there is no such record, or if the offset
    is not between ``begin`` and ``end``.
    """

    begin: int
    end: int
    mark: Mark | None


class ChangelogReader:
    """Reads some changelog partitions; call ``start`` first, and ``close`` at the end."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._consumer = AIOKafkaConsumer(
            **settings.client_options(),
            auto_offset_reset="none",
            enable_auto_commit=False,
            fetch_max_wait_ms=_FETCH_MAX_WAIT_MS,
            max_partition_fetch_bytes=_FETCH_BYTES,
        )
        self._positions: dict[TopicPartition, int] = {}

    async def start(self) -> None:
        """Connect."""
        await self._consumer.start()

    async def close(self) -> None:
        """Disconnect."""
        await self._consumer.stop()

    def follow(self, starts: Mapping[TP, int]) -> None:
        """Read only these partitions from now on, each from the given offset."""
        self._positions = {TopicPartition(*tp): start for tp, start in starts.items()}
        self._consumer.assign(list(self._positions))
        for tp, start in self._positions.items():
            self._consumer.seek(tp, start)

    async def ends(self, tps: Iterable[TP]) -> dict[TP, int]:
        """Return the current end of each partition: the offset after its last record."""
        ends = await _answer(self._consumer.end_offsets, [TopicPartition(*tp) for tp in tps])
        return {TP(*tp): end for tp, end in ends.items()}

    async def look_up(self, offsets: Mapping[TP, int]) -> dict[TP, Found]:
        """Look up the record at one offset of each partition.

        The lookup changes the positions, so call ``follow`` again before the next ``read``.
        """
        tps = [TopicPartition(*tp) for tp in offsets]
        if not tps:
            return {}
        begins = await _answer(self._consumer.beginning_offsets, tps)
        ends = await _answer(self._consumer.end_offsets, tps)
        missing = {tp: at for tp, at in offsets.items() if begins[tp] <= at < ends[tp]}
        found: dict[TP, Mark] = {}
        while missing:
            self.follow(missing)
            # `follow` is not called again before an answer arrives: the call would cancel the
            # current fetch, and its answer would be lost.
            while not (chunks := await self.read(_LOOK_WAIT_S)):
                pass
            for chunk in chunks:
                found.update((chunk.tp, each.mark) for each in chunk.records[:1])
                del missing[chunk.tp]
        return {tp: Found(begins[tp], ends[tp], found.get(tp)) for tp in offsets}

    async def read(self, wait_s: float) -> list[ChangelogChunk]:
        """Return at most one chunk of each partition; wait up to ``wait_s`` for the first chunk.

        Raise ``ChangelogLostError`` if a partition no longer has the offset to read next.
        """

        async def fetch_now() -> Any:
            return await self._consumer.getmany(timeout_ms=0, max_records=_MOST_RECORDS)

        ended = fetching(self._consumer)
        if ended.done():
            # aiokafka's fetching has ended, so no more records will arrive. `result` raises the
            # error that ended it, if there was one.
            ended.result()
            raise ChangelogLostError("the Kafka client that reads changelogs has ended")
        try:
            fetched = await fetch_as(self._consumer, fetch_now, wait_s, lambda _tp: record_of)
        except OffsetOutOfRangeError as error:
            raise ChangelogLostError(await self._lost(error)) from error
        chunks = []
        for tp, begin in self._positions.items():
            # If compaction has removed the last records of a fetch, the client's position is still
            # after these records.
            end = await self._consumer.position(tp)
            if end > begin:
                chunks.append(ChangelogChunk(TP(*tp), begin, end, fetched.get(tp, [])))
                self._positions[tp] = end
        return chunks

    async def _lost(self, error: OffsetOutOfRangeError) -> str:
        """Return an error text that names the changelog which lacks its table's end offset."""
        begins = await _answer(self._consumer.beginning_offsets, list(self._positions))
        ends = await _answer(self._consumer.end_offsets, list(self._positions))
        for tp, at in self._positions.items():
            if not begins[tp] <= at <= ends[tp]:
                return lost(TP(*tp), begins[tp], ends[tp], at)
        return str(error)


async def _answer(
    ask: Callable[[list[TopicPartition]], Awaitable[_Offsets]], tps: list[TopicPartition]
) -> _Offsets:
    """Ask for offsets until the brokers answer; aiokafka itself gives up after 40 s."""
    while tps:
        try:
            return await ask(tps)
        except KafkaTimeoutError:
            continue
    return {}


def lost(tp: TP, begin: int, end: int, needed: int, whose: str = "table") -> str:
    """Return the error text for a changelog that lacks the offset ``needed``.

    ``whose`` says what ends at this offset: this worker's table, or this worker's claim.
    """
    remedy = (
        "`plexy-ledger rebuild` folds the whole log of record from scratch"
        if begin > 0
        else "the worker's next start restores the table, and folds the missing records again"
    )
    return (
        f"{tp.topic}[{tp.partition}] holds offsets {begin} to {end}, and this worker's {whose} "
        f"ends at {needed}: records of the changelog were deleted, or the topic was recreated. "
        f"{remedy}"
    )
