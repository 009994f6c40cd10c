"""Workers recover from a changelog that ends with tombstones, or with offsets without a record.

On a broker of its own, whose cleaner is in a hurry.
"""

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from cli.kafka.broker import EmbeddedKafka
from cli.kafka.distribution import KafkaCache
from ledger.topics import all_topics
from processors.batches import OutRecord, send_to_partition
from processors.changelogs import ends_of_records
from processors.chunk import Chunk
from processors.settings import WorkerSettings
from processors.topology import LedgerApp
from runtime.topics import ensure_topics
from tests.kafka.harness import environment, free_port, producer
from tests.kafka.test_transport import append, end_of, keep, ready, running, until
from tests.kafka.test_transport import pytestmark as warnings_of_faust

pytestmark = [*warnings_of_faust, pytest.mark.timeout(300)]

PARTITION = 1
KEYS = [b"key %d" % n for n in range(10)]
IN_A_HURRY = {
    "segment.ms": "1",
    "min.cleanable.dirty.ratio": "0.0001",
    "delete.retention.ms": "0",
    "file.delete.delay.ms": "0",
}


@pytest.fixture(scope="module")
def kafka(
    kafka_cache: KafkaCache, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedKafka]:
    folder = tmp_path_factory.mktemp("cleaning")
    properties = {"log.cleaner.backoff.ms": "100"}
    with EmbeddedKafka(folder, cache=kafka_cache, properties=properties) as broker:
        yield broker


@pytest.fixture
async def settings(kafka: EmbeddedKafka, tmp_path: Path) -> WorkerSettings:
    env = environment(kafka.bootstrap, tmp_path / "one", standby_replicas=0)
    made = WorkerSettings.from_environment(env)
    await ensure_topics(made)
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    try:
        # What is not named here would be set back to the broker's defaults.
        topics = {topic.name: topic.config for topic in all_topics(made.names, made.group_id)}
        name = changelog(made).topic
        config = topics[name] | IN_A_HURRY
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, config)])
    finally:
        await admin.close()
    return made


def changelog(settings: WorkerSettings) -> TopicPartition:
    return TopicPartition(f"{settings.group_id}-seen-changelog", PARTITION)


async def write(settings: WorkerSettings, values: dict[bytes, bytes | None]) -> None:
    """Write to the changelog, into a segment of its own: the one before can be cleaned then."""
    await asyncio.sleep(0.01)
    async with producer(settings.bootstrap_servers[0]) as client:
        records = [OutRecord(key, value) for key, value in values.items()]
        await send_to_partition(client, *changelog(settings), records)


async def read(settings: WorkerSettings) -> list[Any]:
    """Return the records that are there."""
    tp = changelog(settings)
    async with AIOKafkaConsumer(bootstrap_servers=settings.bootstrap_servers) as consumer:
        consumer.assign([tp])
        consumer.seek(tp, 0)
        records: list[Any] = []
        while fetched := await consumer.getmany(timeout_ms=1000):
            records += fetched[tp]
        return records


async def write_marker(settings: WorkerSettings) -> None:
    """Put a tombstone and a transaction's marker at the end: its offset has no record."""
    client = AIOKafkaProducer(bootstrap_servers=settings.bootstrap_servers, transactional_id="any")
    async with client, client.transaction():
        topic, partition = changelog(settings)
        await client.send(topic, key=KEYS[0], value=None, partition=partition)


async def wait_cleaned(settings: WorkerSettings) -> None:
    """Wait until nothing is left but the last tombstones, of one key."""
    async with asyncio.timeout(120):
        while {(r.key, r.value) for r in await read(settings)} != {(KEYS[-1], None)}:
            # The cleaner takes a tombstone away only in a later pass, if there is something new.
            await write(settings, {KEYS[-1]: None})


async def ends(settings: WorkerSettings) -> int:
    tp = changelog(settings)
    end = await end_of(settings, tp)
    async with asyncio.timeout(60):
        return (await ends_of_records(settings, {tp: 0}, {tp: end}))[tp]


@asynccontextmanager
async def folding(settings: WorkerSettings) -> AsyncIterator[LedgerApp]:
    """Run an app that writes a key for each chunk."""

    async def work(chunk: Chunk) -> None:
        await keep(app.chunk_tables["seen"], chunk, {b"%d" % chunk.next_offset: b"value"})

    async with running(settings, work) as app:
        await ready(app)
        yield app


async def test_the_end_of_a_changelog_is_behind_its_last_record(settings: WorkerSettings) -> None:
    assert await ends(settings) == 0
    await write_marker(settings)
    assert (await ends(settings), await end_of(settings, changelog(settings))) == (1, 2)
    await write(settings, dict.fromkeys(KEYS, b"value"))
    assert await ends(settings) == await end_of(settings, changelog(settings)) == 12
    await write_marker(settings)
    await write_marker(settings)
    assert (await ends(settings), await end_of(settings, changelog(settings))) == (15, 16)
    tp = changelog(settings)
    # Between two markers, or of a changelog whose records were all deleted.
    assert await ends_of_records(settings, {tp: 13}, {tp: 14}) == {tp: 13}


async def test_a_changelog_of_which_only_tombstones_are_left_is_recovered(
    settings: WorkerSettings,
) -> None:
    await write(settings, dict.fromkeys(KEYS, b"value"))
    await write(settings, dict.fromkeys(KEYS))
    await wait_cleaned(settings)
    last = (await read(settings))[-1].offset
    async with folding(settings) as app:
        table = app.chunk_tables["seen"]
        assert table.read_chunk(PARTITION, KEYS) == {}
        assert table.data.persisted_offset(changelog(settings)) == last
        await append(settings, PARTITION, "chunk")
        await until(lambda: table.read(PARTITION, b"1") == b"value" or app.crashed)
        assert not app.crashed


async def test_a_changelog_whose_last_offset_has_no_record_is_recovered_by_owner_and_standby(
    settings: WorkerSettings, tmp_path: Path
) -> None:
    """Faust alone would wait for that offset for ever."""
    await write(settings, dict.fromkeys(KEYS, b"value"))
    await write_marker(settings)
    one = msgspec.structs.replace(settings, standby_replicas=1)
    two = msgspec.structs.replace(one, data_dir=tmp_path / "two", web_port=free_port())
    await _recover_both(one, two)
    # RocksDB's own lock on the folder goes with the last reference.
    gc.collect()
    # And once more, by a table that is as far as the last record.
    await write_marker(settings)
    async with folding(one) as app:
        values = app.chunk_tables["seen"].read_chunk(PARTITION, [*KEYS, b"1"])
        assert values == dict.fromkeys([*KEYS[1:], b"1"], b"value")


async def _recover_both(one: WorkerSettings, two: WorkerSettings) -> None:
    async with folding(one) as first, folding(two) as second:
        apps = (first, second)
        await until(lambda: all(app.tables.standbys_ready for app in apps))
        await ready(*apps)
        (table,) = [
            app.chunk_tables["seen"]
            for app in apps
            if app.chunk_tables["seen"].is_active(PARTITION)
        ]
        assert table.read_chunk(PARTITION, KEYS) == dict.fromkeys(KEYS[1:], b"value")
        await append(one, PARTITION, "chunk")
        await until(lambda: table.read(PARTITION, b"1") or first.crashed or second.crashed)
        assert not first.crashed
        assert not second.crashed
