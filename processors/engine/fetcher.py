"""Fetching: aiokafka's records, made as our own light kind, and Faust's thread that fetches them.

Input: an aiokafka consumer, and the partitions that have room. Output: the fetched records. They
are never made as aiokafka's own kind, which takes ten times as long, and a wait for idle partitions
never holds up busy ones.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final, cast

from aiokafka import AIOKafkaConsumer
from aiokafka.consumer.fetcher import FetchResult
from aiokafka.structs import TopicPartition
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from mode import Service
from msgspec.structs import replace

from ledger.trust import MAX_HEADERS
from processors.engine.chunk import FetchedRecord
from runtime.kafka.fetched import Batches
from runtime.trace_settings import TRACEPARENT

# Faust fixes the wait at 1500 ms: a fetch that waits for idle partitions would hold up busy ones.
_FETCH_MAX_WAIT_MS: Final = 50
# A version, two ids and flags, in hex: W3C Trace Context.
_TRACEPARENT_BYTES: Final = 55
_ERRORS_LOOKED_FOR_EVERY_S: Final = 0.5


Fetched = Mapping[TopicPartition, list[FetchedRecord]]
Make = Callable[[Batches, TopicPartition, Any], FetchedRecord]


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """Runs the group's consumer in a loop of its own."""

    def _create_worker_consumer(self, transport: Any) -> AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        # There is no setting for it; the fetcher reads it when the consumer starts, later.
        consumer._fetch_max_wait_ms = _FETCH_MAX_WAIT_MS  # noqa: SLF001
        return consumer

    @Service.task
    async def _heed_coordinator(self) -> None:
        """End the worker by an error of the group's coordinator, such as a lack of rights.

        aiokafka raises it when records are fetched. A worker that is not let into its group never
        fetches, and would wait forever.
        """
        while not self.should_stop:
            await self.sleep(_ERRORS_LOOKED_FOR_EVERY_S)
            coordinator = self._consumer and self._consumer._coordinator  # noqa: SLF001
            if coordinator is not None and not self.should_stop:
                coordinator.check_errors()

    async def _fetch_records(
        self,
        consumer: AIOKafkaConsumer,
        active_partitions: set[TP],
        timeout: float | None = None,  # noqa: ASYNC109 - Faust's signature
        max_records: int | None = None,
    ) -> Fetched:
        """Return the next records of the given partitions, as our own kind of record."""
        fetch = super()._fetch_records

        async def fetch_now() -> Any:
            return await fetch(consumer, active_partitions, 0, max_records)

        return await fetch_light(consumer, fetch_now, timeout or 0, self._maker)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Keep aiokafka from fetching changelogs, which ``recovery`` reads by itself.

        The group's assignment names them so that Faust can share the tables out.
        """
        changelogs = self.app.tables.changelog_topics
        paused = (TopicPartition(*tp) for tp in assigned if tp.topic in changelogs)
        self._ensure_consumer().pause(*paused)
        await super().on_partitions_assigned(assigned, generation_id)

    def _maker(self, tp: TopicPartition) -> Make:
        """Return what makes a record of a partition, with the headers that this worker reads."""
        app = cast("Any", self.app)
        if app.settings.enforced_trust is not None and tp.topic == app.names.webhooks:
            return _signed_record
        return record_of if app.spans is None else _traced_record

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Check whether a partition stands still, unless it has no position yet.

        A partition has no position while the client looks for it, as after a log lost its records.
        Faust would crash then, and the worker would end before it can name the cause. A changelog
        is not fetched by this client at all.
        """
        assignment = self._ensure_consumer()._fetcher._subscriptions.subscription.assignment  # noqa: SLF001
        state = assignment and assignment.state_value(TopicPartition(tp.topic, tp.partition))
        if state and state.has_valid_position and not state.paused:
            super().verify_event_path(now, tp)


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


def _signed_record(batches: Batches, tp: TopicPartition, record: Any) -> FetchedRecord:
    """Make a record with its headers, for its signature to be checked."""
    made = _traced_record(batches, tp, record)
    return replace(made, headers=record.headers[:MAX_HEADERS])


def _traced_record(batches: Batches, tp: TopicPartition, record: Any) -> FetchedRecord:
    """Make a record with the header that names its trace, if it has one."""
    for name, value in record.headers:
        # Anybody may have written the record, and a value of the header's own length is passed on.
        if name == TRACEPARENT and value and len(value) <= _TRACEPARENT_BYTES:
            place = (tp.partition, record.offset, record.timestamp, batches.leader_epoch)
            return FetchedRecord(record.key, record.value, *place, value)
    return record_of(batches, tp, record)
