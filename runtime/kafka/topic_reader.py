"""Reads records of a topic at places (partition and offset) or in ranges of offsets, for views.

Input: places, or ranges. Output: the records at these offsets. Invariants: every reading has a time
limit; only a few readings run at a time, and a limited number of others wait for a client. The
clients have no consumer group, and the fold never waits for a reading.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import ConsumerStoppedError, KafkaError

from ledger.records import SignedRecord
from runtime.kafka.connection import KafkaSettings
from runtime.kafka.reading import read_ranges

Offsets = Mapping[int, int]
"""An offset for each partition."""

READ_WITHIN_S: Final = 8.0
"""The time limit of one reading in seconds, including the wait for a client.

All readings for one answer share one such limit; see ``in_time``.
"""

# While two readings of 500 places ran without a pause, a reading of one place took 1.2 s with one
# client, 1.0 s with two clients, and 5 ms with three clients (medians).
_CLIENTS: Final = 3
_MOST_READINGS: Final = 64
# The deliveries of a very large order take several megabytes, and a single record that another
# program wrote may take ten megabytes.
_MOST_BYTES: Final = 64 * 1024 * 1024
_STOPS_WITHIN_S: Final = 2.0
# A reading needs few of the records in a fetch, and drops the others.
_FETCH_BYTES: Final = 128 * 1024
_FETCH_MAX_WAIT_MS: Final = 20
# One fetch returns about this many records of a webhook's size, so places that are this near to
# each other are read as one range. For 500 places at a distance of three records, single
# readings took 2 s, but ranges took 12 ms.
_NEAR: Final = 100


class LogUnreadableError(Exception):
    """Records could not be read: Kafka failed or was too slow, or no longer has the records."""

    code = "log_unavailable"
    status = 503


class TooManyReadingsError(LogUnreadableError):
    """Too many readings are under way, or wait for a client."""

    code = "overloaded"


class TooMuchReadError(LogUnreadableError):
    """The records for one answer have more bytes than one answer may keep in memory."""

    code = "order_too_large"
    status = 413


@asynccontextmanager
async def in_time(what: str) -> AsyncIterator[None]:
    """Apply the time limit of one reading to a ``with`` block, which may also ask other workers.

    At the limit, raise ``LogUnreadableError`` with a text that starts with ``what``.
    """
    try:
        async with asyncio.timeout(READ_WITHIN_S):
            yield
    except TimeoutError:
        text = f"{what}: not read within {READ_WITHIN_S:g} s; Kafka, or another worker, is slow"
        raise LogUnreadableError(text) from None


class TopicReader:
    """A few clients for all readings; a reading that finds no idle client creates a client."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._readings = 0
        self._free = asyncio.Semaphore(_CLIENTS)
        self._idle: list[AIOKafkaConsumer] = []
        self._clients: set[AIOKafkaConsumer] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._is_closed = False

    async def close(self) -> None:
        """Stop the clients; current readings and later readings end with an error."""
        self._is_closed = True
        for client in list(self._clients):
            self._end(client)
        if self._closing:
            await asyncio.wait(self._closing, timeout=_STOPS_WITHIN_S)

    async def ends(self, topic: str, partitions: int) -> Offsets:
        """Return the offset after each partition's last record."""
        tps = _partitions(topic, partitions)
        found = await self._ask(topic, lambda client: client.end_offsets(tps))
        return {tp.partition: end for tp, end in found.items()}

    async def begins(self, topic: str, partitions: int) -> Offsets:
        """Return each partition's first offset."""
        tps = _partitions(topic, partitions)
        found = await self._ask(topic, lambda client: client.beginning_offsets(tps))
        return {tp.partition: begin for tp, begin in found.items()}

    async def at(self, topic: str, keys: Mapping[tuple[int, int], bytes]) -> list[SignedRecord]:
        """Return the records at some places; ``keys`` has their keys, by partition and offset.

        Raise ``LogUnreadableError`` if the topic has lost one of the records, or if the record at
        one of the places has a different key. Raise ``TooMuchReadError`` if the values are too
        large for one answer.
        """
        wanted: dict[int, set[int]] = {}
        for partition, offset in keys:
            wanted.setdefault(partition, set()).add(offset)

        async def read(client: AIOKafkaConsumer) -> list[SignedRecord]:
            found: list[SignedRecord] = []
            size_bytes = 0
            for partition, offsets in sorted(wanted.items()):
                for start, end in ranges(offsets):
                    async for each in _records(client, topic, {partition: start}, {partition: end}):
                        if each.offset in offsets:
                            found.append(each)
                            size_bytes += len(each.value or b"")
                            _require_few(size_bytes)
            return found

        records: list[SignedRecord] = await self._ask(topic, read)
        missing = {(p, o) for p, some in wanted.items() for o in some}
        missing -= {(record.partition, record.offset) for record in records}
        if missing:
            partition, offset = min(missing)
            raise LogUnreadableError(f"{topic} no longer has a record at {partition}/{offset}")
        for each in records:
            if each.key != keys[each.partition, each.offset]:
                place = f"{each.partition}/{each.offset}"
                raise LogUnreadableError(f"{topic} no longer has the folded record at {place}")
        return records

    async def between(
        self, topic: str, starts: Offsets, ends: Offsets, key: bytes | None = None
    ) -> list[SignedRecord]:
        """Return each partition's records from its start to its end.

        If ``key`` is given, return only the records with this key.
        """

        async def read(client: AIOKafkaConsumer) -> list[SignedRecord]:
            records = _records(client, topic, starts, ends)
            return [each async for each in records if key is None or each.key == key]

        records: list[SignedRecord] = await self._ask(topic, read)
        return records

    async def through(
        self, tp: TopicPartition, start: int, end: int, take: Callable[[SignedRecord], None]
    ) -> None:
        """Call ``take`` with each record of a partition from ``start`` up to ``end``."""

        async def read(client: AIOKafkaConsumer) -> None:
            numbered = {tp.partition: start}, {tp.partition: end}
            async for each in _records(client, tp.topic, *numbered):
                take(each)

        await self._ask(tp.topic, read)

    async def _ask(self, topic: str, question: Callable[[AIOKafkaConsumer], Any]) -> Any:
        """Call ``question`` with a client, as soon as a client is free."""
        if self._readings >= _MOST_READINGS:
            raise TooManyReadingsError(f"{self._readings} other readings are under way or waiting")
        self._readings += 1
        try:
            async with asyncio.timeout(READ_WITHIN_S), self._free, self._client() as client:
                return await question(client)
        except (KafkaError, ConsumerStoppedError, TimeoutError) as error:
            text = f"Kafka did not answer for {topic}: {type(error).__name__}"
            raise LogUnreadableError(text) from error
        finally:
            self._readings -= 1

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[AIOKafkaConsumer]:
        """Lend a client to the block; if the block fails, the client is not lent again."""
        if self._is_closed:
            raise ConsumerStoppedError
        client = self._idle.pop() if self._idle else self._new_client()
        try:
            if client not in self._clients:
                self._clients.add(client)
                await client.start()
            yield client
        except BaseException:
            self._end(client)
            raise
        self._idle.append(client)

    def _new_client(self) -> AIOKafkaConsumer:
        return AIOKafkaConsumer(
            **self._settings.client_options(),
            auto_offset_reset="none",
            fetch_max_wait_ms=_FETCH_MAX_WAIT_MS,
            max_partition_fetch_bytes=_FETCH_BYTES,
        )

    def _end(self, client: AIOKafkaConsumer) -> None:
        """Stop a client in a task, because the reading has already used its time."""
        self._clients.discard(client)
        task = asyncio.create_task(client.stop())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


def ranges(offsets: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yield the ranges to read for some offsets; the end of a range is exclusive.

    >>> list(ranges([7, 5, 6, 90, 1000]))
    [(5, 91), (1000, 1001)]
    """
    first = last = -1
    for offset in sorted(offsets):
        if first >= 0 and offset - last > _NEAR:
            yield first, last + 1
            first = -1
        first, last = offset if first < 0 else first, offset
    if first >= 0:
        yield first, last + 1


async def _records(
    client: AIOKafkaConsumer, topic: str, starts: Offsets, ends: Offsets
) -> AsyncIterator[SignedRecord]:
    """Yield each partition's records from its start to its end."""
    async for _, records in read_ranges(client, topic, starts, ends):
        for record in records:
            yield record


def _require_few(size_bytes: int) -> None:
    if size_bytes > _MOST_BYTES:
        raise TooMuchReadError(
            f"the deliveries have more than the {_MOST_BYTES} bytes that one answer may hold; "
            "`plexy-ledger verify --order` reads them all"
        )


def _partitions(topic: str, partitions: int) -> list[TopicPartition]:
    return [TopicPartition(topic, number) for number in range(partitions)]
