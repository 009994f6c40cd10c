"""Fetching: aiokafka's records, made as our own light kind.

Input: an aiokafka consumer. Output: the fetched records. They are never made as aiokafka's own
kind, which takes ten times as long.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final

from aiokafka import AIOKafkaConsumer
from aiokafka.consumer.fetcher import FetchResult
from aiokafka.structs import TopicPartition
from msgspec.structs import replace

from processors.engine.chunk import FetchedRecord
from runtime.kafka.fetched import Batches
from runtime.traces import TRACEPARENT

# A version, two ids and flags, in hex: W3C Trace Context.
_TRACEPARENT_BYTES: Final = 55

Fetched = Mapping[TopicPartition, list[FetchedRecord]]
Make = Callable[[Batches, TopicPartition, Any], FetchedRecord]


async def fetch_light(
    consumer: AIOKafkaConsumer,
    fetch_now: Callable[[], Awaitable[Fetched]],
    wait_s: float,
    maker: Callable[[TopicPartition], Make],
) -> Fetched:
    """Return what ``fetch_now`` returns, and wait up to ``wait_s`` for something.

    ``maker`` returns the function that makes the records of a partition.

    aiokafka makes its records when they are asked for. So ``fetch_now`` never waits: before each
    call the batches that have arrived are told how to make their records.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + wait_s
    fetcher = consumer._fetcher  # noqa: SLF001
    while True:
        for tp, result in fetcher._records.items():  # noqa: SLF001
            if isinstance(result, FetchResult) and result.has_more():
                records = result._partition_records  # noqa: SLF001
                records._consumer_record = partial(maker(tp), records._records)  # noqa: SLF001
        fetched = await fetch_now()
        remaining_s = until - loop.time()
        if fetched or remaining_s <= 0:
            return fetched
        waiter = fetcher._create_fetch_waiter()  # noqa: SLF001
        await asyncio.wait([waiter], timeout=remaining_s)
        if not waiter.done():
            waiter.cancel()
            return {}
        # Raises what the group's coordinator found, such as a lack of rights.
        waiter.result()


def record_of(batches: Batches, tp: TopicPartition, record: Any) -> FetchedRecord:
    """Make a record from aiokafka's parsed one; called for each record, hence by position."""
    place = (tp.partition, record.offset, record.timestamp, batches.leader_epoch)
    return FetchedRecord(record.key, record.value, *place)


def record_with_headers(
    most: int, batches: Batches, tp: TopicPartition, record: Any
) -> FetchedRecord:
    """Make a record with its first headers: a stranger may have written millions of them."""
    return replace(traced_record(batches, tp, record), headers=record.headers[:most])


def traced_record(batches: Batches, tp: TopicPartition, record: Any) -> FetchedRecord:
    """Make a record with the header that names its trace, if it has one."""
    for name, value in record.headers:
        # Anybody may have written the record, and a value of the header's own length is passed on.
        if name == TRACEPARENT and value and len(value) <= _TRACEPARENT_BYTES:
            place = (tp.partition, record.offset, record.timestamp, batches.leader_epoch)
            return FetchedRecord(record.key, record.value, *place, value)
    return record_of(batches, tp, record)
