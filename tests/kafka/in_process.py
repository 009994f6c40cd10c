"""Runs a worker's app in the test's process, with an agent that does work defined by the test.

The module also appends to the log of record, and reads end offsets and committed offsets.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from faust.types import TP
from msgspec.structs import replace

from processors.engine.chunk import Chunk
from processors.engine.effects import Effects, folding
from processors.engine.lanes import work_in_lanes
from processors.engine.tables import ChunkTable
from processors.engine.transport import chunked
from processors.settings import WorkerSettings
from processors.topology import LedgerApp, new_app
from processors.worker import Worker
from runtime.kafka.batches import OutRecord, send_to_partition
from tests.fakes import until
from tests.kafka.harness import PARTITIONS, free_port, producer

Work = Callable[[Chunk], Awaitable[None]]

# When Faust and its library mode stop, they leave some coroutines and sockets open until the
# garbage collector finds them. Python warns about each of these.
WARNINGS_OF_FAUST = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@asynccontextmanager
async def running(settings: WorkerSettings, work: Work) -> AsyncIterator[LedgerApp]:
    """Run an app that does ``work`` for each chunk of the log of record, and for no other chunk."""
    app = new_app(settings, worker_class=Worker, middlewares=[])

    @app.agent(chunked(app, app.names.webhooks), name="probe")
    async def probe(chunks: Any) -> None:
        await work_in_lanes(chunks, work)

    for topic in (app.names.events, app.names.payments):

        @app.agent(chunked(app, topic), name=topic)
        async def idle(chunks: Any) -> None:
            async for _ in chunks:
                pass

    app.finalize()
    await app.start()
    try:
        yield app
    finally:
        await app.stop()


async def ready(*apps: LedgerApp) -> None:
    """Wait until every app has recovered its tables and no rebalance is under way."""
    await until(lambda: all(app.tables.actives_ready and not app.rebalancing for app in apps))


def second_settings(settings: WorkerSettings, folder: Path) -> WorkerSettings:
    """Return the settings of a second worker of the same group."""
    return replace(settings, data_dir=folder, web_port=free_port())


async def keep(table: ChunkTable, chunk: Chunk, values: Mapping[bytes, bytes | None]) -> None:
    """Write new values to a table as ``Effects`` writes the results of a chunk."""

    def fold(_: Chunk, effects: Effects) -> None:
        effects.keep(values.items())

    await folding(table.app, "hop", table, PARTITIONS, fold)(chunk)


async def append(settings: WorkerSettings, partition: int, *keys: str) -> None:
    """Append one record per key to a partition of the log; each record's value equals its key."""
    async with producer(settings.bootstrap_servers[0]) as client:
        topic = f"{settings.topic_prefix}plexy.webhooks"
        records = [OutRecord(key.encode(), key.encode()) for key in keys]
        await send_to_partition(client, topic, partition, records)


async def end_of(settings: WorkerSettings, tp: TP) -> int:
    """Return the offset that the next record of a partition will have."""
    async with AIOKafkaConsumer(bootstrap_servers=settings.bootstrap_servers) as consumer:
        partition = TopicPartition(tp.topic, tp.partition)
        return int((await consumer.end_offsets([partition]))[partition])


async def committed(settings: WorkerSettings, tp: TP) -> int:
    """Return the offset that the workers' group has committed, or 0 if it has committed none."""
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.bootstrap_servers)
    await admin.start()
    try:
        offsets = await admin.list_consumer_group_offsets(settings.group_id)
    finally:
        await admin.close()
    return max([0, *(o.offset for t, o in offsets.items() if (t.topic, t.partition) == tp)])
