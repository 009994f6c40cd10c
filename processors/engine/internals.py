"""Wraps the private names that the worker uses from Faust, and from ``mode``, Faust's library.

No other module of the worker uses these names. The base classes here turn private hooks of Faust
into public methods that the engine overrides. The functions give access to values and actions that
Faust keeps private. ``runtime.internals`` lists the names, and checks at import that the installed
versions have them.
"""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any, Final

import faust
from aiokafka import AIOKafkaConsumer
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import ConsumerStoppedError
from aiokafka.structs import TopicPartition
from faust.stores import STORES
from faust.stores.rocksdb import Store
from faust.tables.manager import TableManager
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, AppT
from mode import Service

from ledger.digest import RESERVED
from processors.engine.fetcher import Fetched, Make
from processors.engine.offsets import ChunkOffsets
from runtime import internals
from runtime.kafka.internals import coordinator_of, fetch_as, is_fetched, wait_for_fetches

# A broker delays an empty answer for up to this time. With Faust's 1500 ms, records of busy
# partitions would wait while a fetch waits for records of idle partitions.
_FETCH_MAX_WAIT_MS: Final = 50
_ERRORS_LOOKED_FOR_EVERY_S: Final = 0.5

internals.check()


class FaustThread(driver.AIOKafkaConsumerThread):
    """Faust's thread, on which the group's consumer runs in a separate event loop."""

    consumer: "FaustConsumer"

    def _create_worker_consumer(self, transport: Any) -> AIOKafkaConsumer:
        client = super()._create_worker_consumer(transport)
        wait_for_fetches(client, _FETCH_MAX_WAIT_MS)
        return client

    async def _fetch_records(
        self,
        consumer: AIOKafkaConsumer,
        active_partitions: set[TP],
        timeout: float | None = None,  # noqa: ASYNC109 - Faust's signature
        max_records: int | None = None,
    ) -> Fetched:
        """Return the next records of the given partitions, each as a ``FetchedRecord``."""
        now = partial(super()._fetch_records, consumer, active_partitions, 0, max_records)
        return await fetch_as(consumer, now, timeout or 0, self.consumer.maker)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Pause the changelogs: Faust assigns them to this client, but ``recovery`` reads them."""
        changelogs = self.app.tables.changelog_topics
        paused = (TopicPartition(*tp) for tp in assigned if tp.topic in changelogs)
        self._ensure_consumer().pause(*paused)
        await super().on_partitions_assigned(assigned, generation_id)

    @Service.task
    async def _heed_coordinator(self) -> None:
        """End the worker after an error of the group's coordinator, such as a missing permission.

        aiokafka raises the error only in a fetch, and a worker that is not in its group never
        fetches.
        """
        while not self.should_stop:
            await self.sleep(_ERRORS_LOOKED_FOR_EVERY_S)
            coordinator = self._consumer and coordinator_of(self._consumer)
            if coordinator is not None and not self.should_stop:
                coordinator.check_errors()

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Check whether a partition is stuck, unless the partition has no position yet.

        A partition has no position while the client looks for one, for example after a log lost its
        records. Without a position, Faust's check would crash, and the worker would end before it
        could report the cause. Changelogs are not checked either, because this client never fetches
        them.
        """
        if is_fetched(self._ensure_consumer(), TopicPartition(*tp)):
            super().verify_event_path(now, tp)


class FaustConsumer(driver.Consumer, ABC):
    """Faust's consumer, changed to commit the end of each chunk, not the offset of each record."""

    offsets: ChunkOffsets

    @property
    def client(self) -> AIOKafkaConsumer:
        """The aiokafka consumer; ``ConsumerNotStarted`` is raised until that consumer exists."""
        return self._thread._ensure_consumer()  # noqa: SLF001

    @abstractmethod
    def maker(self, tp: TopicPartition) -> Make:
        """Return the function that makes the records of a partition."""

    async def on_thread(self, function: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        """Run a function on the thread of ``client``, and return its result.

        Raise ``ConsumerStoppedError`` once this consumer stops: the thread stops too, so it would
        never answer.
        """
        if not self.should_stop:
            answer = await self.wait(self._thread.call_thread(function, *args))
            if not answer.stopped:
                return answer.result
        raise ConsumerStoppedError

    async def next_fetched(self, timeout_s: float) -> Any:
        """Return the next result of ``fetch``, and the partitions that may deliver records now."""
        return await self._wait_next_records(timeout_s)

    async def fetch(self, partitions: set[TP] | None, timeout_s: float) -> Any:
        """Return the next records of these partitions; ``None`` means all partitions."""
        return await super()._getmany(partitions, timeout_s)

    def _new_consumer_thread(self) -> FaustThread:
        return FaustThread(self, loop=self.loop, beacon=self.beacon)

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:  # noqa: ASYNC109
        return await self.fetch(active_partitions, timeout)

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        tps = self.offsets.partitions()
        return (tp for tp in tps if topics is None or tp in topics or tp.topic in topics)

    def _new_offset(self, tp: TP) -> int | None:
        return self.offsets.committable(tp)

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Do nothing: gaps between offsets do not matter, because only chunks are counted."""


class Databases(Store):
    """A table's databases by partition.

    Opening a damaged database raises ``DamagedTableError``.
    """

    # The key under which a database stores the last changelog offset that was applied to it. Faust
    # uses a text key, which an external id could equal; no UTF-8 text starts with this byte.
    offset_key = RESERVED

    def of(self, partition: int) -> Any:
        """Return the database of a partition; open the database first if it is closed."""
        return self._db_for_partition(partition)

    def opened(self) -> list[Any]:
        """Return the open databases."""
        return list(self._dbs.values())

    def _open_for_partition(self, partition: int) -> Any:
        table: Any = self.table
        with table.intact(partition):
            return super()._open_for_partition(partition)


# Faust uses this class for all tables whose store has the URL ``rocksdb://``.
STORES.aliases["rocksdb"] = f"{__name__}:{Databases.__name__}"


class FaustWorker(faust.Worker):
    """Faust's worker program; a subclass decides how the program ends."""

    # The first function is called after a service crashed, and the second function after a signal.
    end_by_error: Callable[[BaseException], None]
    end_by_signal: Callable[[], None]

    def _crash(self, reason: BaseException) -> None:
        self.end_by_error(reason)

    def _schedule_shutdown(self, signal: Any) -> None:
        self.end_by_signal()
        super()._schedule_shutdown(signal)

    async def _sentinel_task(self) -> None:
        """End at once; ``mode``'s own task would keep the event loop running for a second."""


def client_of(app: AppT) -> AIOKafkaClient:
    """Return the client of Faust's producer; ``writers`` writes through its connections."""
    producer: Any = app.producer
    return producer._producer.client  # noqa: SLF001


def owner_of(app: AppT, changelog: TP) -> str:
    """Return the address of a changelog's worker; raise ``KeyError`` if no worker has it.

    Faust's public method asks the producer, and the producer knows only the topics to which it has
    written.
    """
    assignor: Any = app.assignor
    return str(assignor._tps_url[changelog])  # noqa: SLF001


async def start_tables(tables: TableManager) -> None:
    """Start the declared tables; Faust itself would first wait a second for further tables."""
    await tables._update_channels()  # noqa: SLF001


async def start_fetching(app: Any) -> None:
    """Start Faust's fetch loop, as Faust's recovery does at its end."""
    await app._fetcher.maybe_start()  # noqa: SLF001
