"""Reads records of a topic by their places, or backwards from its end, for the views.

In: places; offsets to read back from. Out: records, as they stand there. Never: a consumer group, a
commit, or a wait without a bound; and never more than one reading at a time: readers wait for each
other, the agents for none of them.
"""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from ledger.truth import SignedRecord
from runtime.kafka import KafkaSettings

Offsets = Mapping[int, int]
"""An offset for each partition."""

_READ_WITHIN_S: Final = 8.0
_FETCH_MS: Final = 200
# A reading wants few records: what a fetch brings beyond them is thrown away.
_FETCH_BYTES: Final = 128 * 1024
_FETCH_MAX_WAIT_MS: Final = 20


class LogUnreadableError(Exception):
    """Kafka did not answer in time; the text says what was asked for."""


class TopicReader:
    """One client for all readings, from the first one on."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._lock = asyncio.Lock()
        self._consumer: AIOKafkaConsumer | None = None

    async def close(self) -> None:
        """Give up the client, if there is one."""
        async with self._lock:
            await self._disconnect()

    async def ends(self, topic: str, partitions: int) -> Offsets:
        """Return, for each partition, the offset after its last record."""
        tps = _partitions(topic, partitions)
        found = await self._ask(topic, lambda client: client.end_offsets(tps))
        return {tp.partition: end for tp, end in found.items()}

    async def begins(self, topic: str, partitions: int) -> Offsets:
        """Return each partition's first offset."""
        tps = _partitions(topic, partitions)
        found = await self._ask(topic, lambda client: client.beginning_offsets(tps))
        return {tp.partition: begin for tp, begin in found.items()}

    async def at(self, topic: str, places: Iterable[tuple[int, int]]) -> list[SignedRecord]:
        """Return the records at these places, by partition and offset.

        ``LogUnreadableError`` where one of them is not there: the log of record lacks nothing.
        """
        wanted: dict[int, set[int]] = {}
        for partition, offset in places:
            wanted.setdefault(partition, set()).add(offset)

        async def read(client: AIOKafkaConsumer) -> list[SignedRecord]:
            found: list[SignedRecord] = []
            for partition, offsets in sorted(wanted.items()):
                tp = TopicPartition(topic, partition)
                client.assign([tp])
                for offset in sorted(offsets):
                    if found and (found[-1].partition, found[-1].offset) >= (partition, offset):
                        continue
                    found += await _records(client, tp, offset, offset + 1)
            return found

        records: list[SignedRecord] = await self._ask(topic, read)
        missing = {(p, o) for p, some in wanted.items() for o in some}
        missing -= {(record.partition, record.offset) for record in records}
        if missing:
            partition, offset = min(missing)
            raise LogUnreadableError(f"{topic} has no record at {partition}/{offset} any more")
        return records

    async def between(self, topic: str, starts: Offsets, ends: Offsets) -> list[SignedRecord]:
        """Return the records of each partition from its start up to its end."""

        async def read(client: AIOKafkaConsumer) -> list[SignedRecord]:
            found: list[SignedRecord] = []
            for partition, end in ends.items():
                if starts[partition] < end:
                    tp = TopicPartition(topic, partition)
                    client.assign([tp])
                    found += await _records(client, tp, starts[partition], end)
            return found

        records: list[SignedRecord] = await self._ask(topic, read)
        return records

    async def _ask(self, topic: str, question: Any) -> Any:
        """Ask with the client, made anew after whatever went wrong with it."""
        async with self._lock:
            try:
                async with asyncio.timeout(_READ_WITHIN_S):
                    return await question(await self._connected())
            except (KafkaError, TimeoutError) as error:
                await self._disconnect()
                text = f"Kafka did not answer for {topic}: {type(error).__name__}"
                raise LogUnreadableError(text) from error

    async def _connected(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            consumer = AIOKafkaConsumer(
                **self._settings.client_options(),
                auto_offset_reset="none",
                fetch_max_wait_ms=_FETCH_MAX_WAIT_MS,
                max_partition_fetch_bytes=_FETCH_BYTES,
            )
            await consumer.start()
            self._consumer = consumer
        return self._consumer

    async def _disconnect(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.stop()


async def _records(
    client: AIOKafkaConsumer, tp: TopicPartition, start: int, end: int
) -> list[SignedRecord]:
    """Return a partition's records from an offset up to another one, however few there are."""
    client.seek(tp, start)
    found: list[SignedRecord] = []
    while await client.position(tp) < end:
        fetched = await client.getmany(tp, timeout_ms=_FETCH_MS)
        found += [record for record in fetched.get(tp, []) if start <= record.offset < end]
        if not fetched:
            # A compacted topic may end with offsets and no record; the end bounds the wait.
            await asyncio.sleep(0)
    return found


def _partitions(topic: str, partitions: int) -> list[TopicPartition]:
    return [TopicPartition(topic, number) for number in range(partitions)]
