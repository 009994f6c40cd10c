"""A worker's copy of the quarantine, the rejected deliveries, for the worker's views.

The topic ``plexy.rejected`` is read from its beginning only once. After that, only its new records
are read.
"""

import asyncio

from aiokafka import TopicPartition

from ledger.quarantine import Item, Quarantine
from ledger.records import SignedRecord
from ledger.topics import TopicNames
from processors.engine.marks import Mark
from runtime.kafka.topic_reader import TopicReader, in_time


class _RewrittenError(Exception):
    """The topic no longer has the last record that was read from it."""


class Rejections:
    """The quarantine, up to the offsets that were read from its topic."""

    def __init__(self, reader: TopicReader, names: TopicNames, partitions: int) -> None:
        self._reader = reader
        self._names = names
        self._topic = names.rejected
        self._partitions = partitions
        self._lock = asyncio.Lock()
        self._forget()

    def _forget(self) -> None:
        self._quarantine = Quarantine(self._names)
        self._read: dict[int, int] = {}
        # These marks identify the last record that was read from each partition.
        self._last: dict[int, Mark] = {}

    async def now(self) -> Quarantine:
        """Read the new records, and return the quarantine.

        If the time limit ends the call, the next call continues where this call stopped.
        """
        # The time limit includes waiting for the lock.
        async with in_time(f"{self._topic} up to its end"), self._lock:
            try:
                return await self._read_on()
            except _RewrittenError:
                self._forget()
                return await self._read_on()

    async def _read_on(self) -> Quarantine:
        topic, partitions = self._topic, self._partitions
        ends = await self._reader.ends(topic, partitions)
        if not self._read:
            self._read = dict(await self._reader.begins(topic, partitions))
        for partition, end in ends.items():
            if self._read[partition] > end:
                raise _RewrittenError
            if self._read[partition] < end:
                tp, last = TopicPartition(topic, partition), self._last.get(partition)
                # The record that was read last is read again. The topic may have lost its last
                # records, and may have grown again since then.
                start = last.offset if last else self._read[partition]
                await self._reader.through(tp, start, end, self._take)
                self._read[partition] = end
        return self._quarantine

    def _take(self, record: SignedRecord) -> None:
        """Add one record to the quarantine; its body, which may have a megabyte, is not kept."""
        mark = Mark.of(record.offset, record.timestamp, record.key, record.value)
        last = self._last.get(record.partition)
        if last and record.offset <= last.offset:
            if mark != last:
                raise _RewrittenError
            return
        self._last[record.partition] = mark
        self._quarantine.read([record])
        self._read[record.partition] = record.offset + 1

    async def of(self, key: bytes) -> list[Item]:
        """Return the quarantine's items for an event's id, newest last."""
        return (await self.now()).of(key)
