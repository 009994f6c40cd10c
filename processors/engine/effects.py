"""Effects: the writes of one chunk, in an order that makes a crash at any point harmless.

Kafka acknowledges the outputs, then the changelog's records. Then the table is written, together
with the changelog's offset. So no state is written before its outputs, and no table is ahead of its
changelog. After a crash the chunk is folded again. (Faust writes in the opposite order. After a
crash, a key can be in RocksDB but not in the changelog. Then the restarted worker finds the key,
and skips the key's event as a duplicate. So the key never reaches the changelog, and is lost in a
rebalance.)

A fold is a plain function, and each record that it yields is copied into its batch at once. So the
objects of a chunk are freed one after another, while they are still in the processor's caches.
"""

import time
from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import Final

from aiokafka.structs import TopicPartition

from processors.engine.app import EngineApp
from processors.engine.chunk import Attributes, Chunk, FetchedRecord
from processors.engine.databases import NewRows
from processors.engine.lanes import Work
from processors.engine.marks import FED_KEY, HAD_KEY, SOURCE_KEY, encode_ends
from processors.engine.tables import ChunkTable
from processors.engine.writers import Writer
from runtime.kafka.batches import (
    BatchProducer,
    BatchRefusedError,
    OutRecord,
    PartitionBatches,
    Written,
    by_key,
    lost_output,
    send,
)

# A row takes up to 256 KiB, a chunk may need thousands of rows, and a decoded row takes about ten
# times its bytes. So a chunk that needs many long rows is folded in parts.
_READ_AT_A_TIME: Final = 64
_MOST_READ_BYTES: Final = 16 * 1024 * 1024


class ChunkTooLargeError(Exception):
    """The rows that a chunk needs are too large to be held in memory together."""


class Effects:
    """The writes of one chunk: the outputs, the changelog and the rows."""

    def __init__(
        self, producer: BatchProducer, chunk: Chunk, table: ChunkTable, partitions: int
    ) -> None:
        self._producer = producer
        self._chunk = chunk
        self._table = table
        self._partitions = partitions
        self._outputs: dict[TopicPartition, PartitionBatches] = {}
        self._written: dict[TopicPartition, Written] = {}
        self._changelog = PartitionBatches(producer.create_batch)
        self._rows = NewRows()
        # ``_read`` has the keys that were looked up in the table. ``_before`` has the values that
        # were found.
        self._read: set[bytes] = set()
        self._before: dict[bytes, bytes] = {}
        self._then: list[Callable[[], None]] = []
        self.traced: list[tuple[FetchedRecord, Attributes]] = []

    def read(self, keys: Collection[bytes]) -> dict[bytes, bytes]:
        """Return the values of those keys that the table has in the chunk's partition.

        Raise ``ChunkTooLargeError`` if the values of several keys need too much memory.
        """
        self._read.update(keys)
        wanted = list(keys)
        found: dict[bytes, bytes] = {}
        size = 0
        for start in range(0, len(wanted), _READ_AT_A_TIME):
            if size > _MOST_READ_BYTES:
                raise ChunkTooLargeError(f"{self._chunk!r} needs over {size} bytes of rows")
            some = wanted[start : start + _READ_AT_A_TIME]
            held = self._table.read_chunk(self._chunk.partition, some)
            found |= held
            size += sum(map(len, held.values()))
        self._before.update(found)
        return found

    def scan(self, after: bytes, limit: int) -> dict[bytes, bytes]:
        """Return the next rows after a key, sorted by key."""
        found = self._table.scan(self._chunk.partition, after, limit)
        self._before.update(found)
        return found

    def publish(self, topic: str, records: Iterable[OutRecord]) -> None:
        """Add records to a topic, each to the partition of its key."""
        by_key(self._outputs, self._producer, topic, records, self._partitions)

    def keep(self, values: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Add new values of the table; a key whose value is ``None`` is deleted."""
        add, put, known, read = self._changelog.add, self._rows.put, self._before, self._read
        for key, value in values:
            add(key, value)
            before = known.get(key)
            if before is None and key not in read:
                before = self._table.read(self._chunk.partition, key)
            put(key, value, before)

    def trace(self, traced: Iterable[tuple[FetchedRecord, Attributes]]) -> None:
        """Add the attributes for each traced record's span; they include the record's outcome.

        For an untraced chunk the iterable is not read, so that the fold's objects can be freed.
        """
        if self._chunk.traced:
            self.traced = list(traced)

    def then(self, function: Callable[[], None]) -> None:
        """Call a function after everything is written, for example to log or count."""
        self._then.append(function)

    def go_on_with(self, producer: BatchProducer) -> None:
        """Write all unacknowledged records with a different producer."""
        self._producer = producer
        for batches in (*self._outputs.values(), self._changelog):
            batches.cut_again(producer.create_batch)

    async def write(self) -> None:
        """Write everything; raise ``RevokedError`` once the partition is given back."""
        if self._outputs:
            self._written = await send(self._producer, self._outputs)
        await self._write_table()
        for function in self._then:
            function()
        self._table.watchers.folded(self._chunk)

    async def _write_table(self) -> None:
        """Write the rows; the last changelog record is the mark of the last folded source record.

        If a chunk has no rows, its mark is still written; otherwise the table would lag behind the
        committed offset.
        """
        self._chunk.ensure_ours()
        if not self._rows.notes:
            source = self._chunk.records[-1].mark.encode()
            now_ms = time.time_ns() // 1_000_000
            if (fed := self._fed()) is not None:
                self._rows.notes.append(OutRecord(FED_KEY, encode_ends(fed), timestamp_ms=now_ms))
            if (had := self._table.had(self._chunk.partition)) > self._chunk.next_offset:
                self._rows.notes.append(OutRecord(HAD_KEY, b"%d" % had, timestamp_ms=now_ms))
            self._rows.notes.append(OutRecord(SOURCE_KEY, source, timestamp_ms=now_ms))
            for note in self._rows.notes:
                self._changelog.append(note)
        changelog = TopicPartition(self._table.changelog_name, self._chunk.partition)
        written = await send(self._producer, {changelog: self._changelog})
        # If the partition was given back meanwhile, the next owner's records may precede ours.
        self._chunk.ensure_ours()
        self._table.write(self._chunk.partition, self._rows, written[changelog])

    def _fed(self) -> dict[int, int] | None:
        """Return the ends of the next hop's partitions; ``None`` if the chunk has no outputs there.

        Raise ``LostOutputsError`` if Kafka wrote records below an earlier end of their partition.
        """
        wrote = {tp: each for tp, each in self._written.items() if tp.topic == self._table.feeds}
        if not wrote:
            return None
        fed = self._table.fed(self._chunk.partition)
        for tp, written in wrote.items():
            before = fed.get(tp.partition, 0)
            # If a batch that Kafka accepted long ago is sent again, Kafka returns no offset.
            if 0 <= written.first < before:
                raise lost_output(tp)
            fed[tp.partition] = max(before, written.last + 1)
        return fed


Fold = Callable[[Chunk, Effects], None]


def folding(app: EngineApp, hop: str, table: ChunkTable, partitions: int, fold: Fold) -> Work:
    """Return the work for a chunk: fold it, then write its effects.

    If another process has taken over the right to write, this worker takes the right back and folds
    the chunk again. The table is written last, so the second fold has the same result. If a batch
    is too large, only the unwritten records are sent again, in smaller batches, because the records
    of the changelog must be contiguous.
    """

    async def fold_and_write(chunk: Chunk, refused: list[Effects], writer: Writer) -> None:
        # This check comes first, because outputs from outdated rows would be wrong.
        table.ensure_folded(chunk.partition)
        begun_ns = time.time_ns()
        if refused:
            effects = refused.pop()
            effects.go_on_with(writer)
        else:
            effects = Effects(writer, chunk, table, partitions)
            fold(chunk, effects)
        try:
            await effects.write()
        except BatchRefusedError:
            refused.append(effects)
            raise
        if app.spans is not None and effects.traced:
            app.spans.end(hop, chunk, begun_ns, effects.traced)

    async def work(chunk: Chunk) -> None:
        try:
            await app.writers.write(chunk, partial(fold_and_write, chunk, []))
        except ChunkTooLargeError:
            # Nothing has been written yet, and a chunk may be cut at any record.
            for half in chunk.halves():
                await work(half)

    return work
