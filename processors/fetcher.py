"""The thread that fetches: Faust's, with records of our own kind.

In: partitions that have room. Out: what aiokafka has fetched of them. Never: aiokafka's own record,
which takes ten times as long to make; nor a wait on idle partitions that holds up busy ones.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final, cast

from aiokafka import AIOKafkaConsumer
from aiokafka.consumer.fetcher import FetchResult
from aiokafka.structs import TopicPartition
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from msgspec.structs import replace

from ledger.trust import MAX_HEADERS
from processors.chunk import FetchedRecord
from runtime.traces import TRACEPARENT

# Faust fixes this at 1500: a fetch that waits on idle partitions would hold up busy ones as long.
_FETCH_MAX_WAIT_MS: Final = 50
# A version, two ids and flags, in hex: W3C Trace Context.
_TRACEPARENT_BYTES: Final = 55


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """Runs the consumer in a loop of its own."""

    def _create_worker_consumer(self, transport: Any) -> AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        # There is no setting for it; the fetcher reads it when the consumer starts, later.
        consumer._fetch_max_wait_ms = _FETCH_MAX_WAIT_MS  # noqa: SLF001
        return consumer

    async def _fetch_records(
        self,
        consumer: AIOKafkaConsumer,
        active_partitions: set[TP],
        timeout: float | None = None,  # noqa: ASYNC109 - Faust's signature
        max_records: int | None = None,
    ) -> dict[TopicPartition, list[FetchedRecord]]:
        """Return what was fetched, as our own kind of record; wait for it as aiokafka does.

        aiokafka makes its records only when they are asked for. It is asked without a wait each
        time, so that whatever has come meanwhile is told first how to make them.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + (timeout or 0)
        fetcher = consumer._fetcher  # noqa: SLF001
        while True:
            for tp, result in fetcher._records.items():  # noqa: SLF001
                if isinstance(result, FetchResult) and result.has_more():
                    result._partition_records._consumer_record = self._maker(tp)  # noqa: SLF001
            fetched = await super()._fetch_records(consumer, active_partitions, 0, max_records)
            remaining_s = until - loop.time()
            if fetched or remaining_s <= 0:
                return cast("dict[TopicPartition, list[FetchedRecord]]", fetched)
            waiter = fetcher._create_fetch_waiter()  # noqa: SLF001
            await asyncio.wait([waiter], timeout=remaining_s)
            if not waiter.done():
                waiter.cancel()
                return {}
            # Raises what the group's coordinator found, such as a lack of rights.
            waiter.result()

    def _maker(self, tp: TopicPartition) -> Callable[[TopicPartition, Any], FetchedRecord]:
        """Return what makes a record of a partition, with the headers that this worker reads."""
        app = cast("Any", self.app)
        if app.settings.enforced_trust is not None and tp.topic == app.names.webhooks:
            return _signed_record
        return _record if app.spans is None else _traced_record

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Look whether a partition stands still; one that has no position yet can't.

        It has none while the client finds it anew, as after a log lost what it held. Faust would
        crash on that, and the worker end before it can say what happened.
        """
        assignment = self._ensure_consumer()._fetcher._subscriptions.subscription.assignment  # noqa: SLF001
        state = assignment and assignment.state_value(TopicPartition(tp.topic, tp.partition))
        if state and state.has_valid_position:
            super().verify_event_path(now, tp)


def _record(tp: TopicPartition, record: Any) -> FetchedRecord:
    """Make a record of what aiokafka read; called for each, so by position."""
    return FetchedRecord(record.key, record.value, tp.partition, record.offset, record.timestamp)


def _signed_record(tp: TopicPartition, record: Any) -> FetchedRecord:
    """Make a record with its headers, for its signature to be checked."""
    made = _traced_record(tp, record)
    return replace(made, headers=record.headers[:MAX_HEADERS])


def _traced_record(tp: TopicPartition, record: Any) -> FetchedRecord:
    """Make a record with the header that names its trace, if it has one."""
    for name, value in record.headers:
        # Anybody may have written the record, and a value of the header's own length is passed on.
        if name == TRACEPARENT and value and len(value) <= _TRACEPARENT_BYTES:
            place = (tp.partition, record.offset, record.timestamp)
            return FetchedRecord(record.key, record.value, *place, value)
    return _record(tp, record)
