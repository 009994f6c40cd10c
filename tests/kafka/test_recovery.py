"""A worker claims its changelogs, and recovers each table up to the changelog's end, with no gap.

The tests have their own broker, whose log cleaner runs often.
"""

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import ProducerFenced
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from cli.kafka.broker import EmbeddedKafka
from cli.kafka.distribution import KafkaCache
from ledger.topics import all_topics
from processors.engine import changelogs
from processors.engine.changelogs import ChangelogReader
from processors.engine.chunk import Chunk
from processors.engine.tables import SINCE_KEY, ChangelogChunk
from processors.settings import WorkerSettings
from processors.topology import LedgerApp
from processors.worker import create_app
from runtime.kafka.batches import OutRecord, send_to_partition
from runtime.kafka.topics import ensure_topics
from tests.fakes import until
from tests.kafka.harness import environment, producer, writer
from tests.kafka.in_process import (
    WARNINGS_OF_FAUST,
    append,
    end_of,
    keep,
    ready,
    running,
    second_settings,
)

pytestmark = [*WARNINGS_OF_FAUST, pytest.mark.timeout(300)]

PARTITION = 1
DAY_S = 24 * 3600
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
    await configure(made, **IN_A_HURRY)
    return made


async def configure(settings: WorkerSettings, **changes: str) -> None:
    """Change the changelog's configuration in Kafka."""
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.bootstrap_servers)
    await admin.start()
    try:
        # Kafka resets every setting that the request does not name.
        topics = {t.name: t.config() for t in all_topics(settings.names, settings.group_id)}
        name = changelog(settings).topic
        config = topics[name] | changes
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, config)])
    finally:
        await admin.close()


def changelog(settings: WorkerSettings) -> TopicPartition:
    return TopicPartition(f"{settings.group_id}-seen-changelog", PARTITION)


async def write(settings: WorkerSettings, values: dict[bytes, bytes | None]) -> None:
    """Write to a new segment of the changelog, so that the previous segment can be cleaned."""
    await asyncio.sleep(0.01)
    async with producer(settings.bootstrap_servers[0]) as client:
        records = [OutRecord(key, value) for key, value in values.items()]
        await send_to_partition(client, *changelog(settings), records)


async def read(settings: WorkerSettings) -> list[Any]:
    """Return the records of the changelog."""
    tp = changelog(settings)
    async with AIOKafkaConsumer(bootstrap_servers=settings.bootstrap_servers) as consumer:
        consumer.assign([tp])
        consumer.seek(tp, 0)
        records: list[Any] = []
        while fetched := await consumer.getmany(timeout_ms=1000):
            records += fetched[tp]
        return records


async def write_marker(settings: WorkerSettings) -> None:
    """Append a tombstone and a transaction's marker; the marker has an offset but is no record."""
    client = AIOKafkaProducer(bootstrap_servers=settings.bootstrap_servers, transactional_id="any")
    async with client, client.transaction():
        topic, partition = changelog(settings)
        await client.send(topic, key=KEYS[0], value=None, partition=partition)


async def wait_cleaned(settings: WorkerSettings) -> None:
    """Wait until the changelog has only tombstones of the last key."""
    async with asyncio.timeout(120):
        while {(r.key, r.value) for r in await read(settings)} != {(KEYS[-1], None)}:
            # The cleaner removes a tombstone only in a later run, and only after a new record was
            # written.
            await write(settings, {KEYS[-1]: None})


@asynccontextmanager
async def folding(settings: WorkerSettings) -> AsyncIterator[LedgerApp]:
    """Run an app that writes one key to its table for each chunk."""

    async def work(chunk: Chunk) -> None:
        await keep(app.chunk_tables["seen"], chunk, {b"%d" % chunk.next_offset: b"value"})

    # Reset the configuration, because a worker refuses a changelog that loses tombstones early.
    await configure(settings)
    async with running(settings, work) as app:
        await ready(app)
        yield app


async def test_a_changelog_that_has_only_tombstones_left_is_recovered(
    settings: WorkerSettings,
) -> None:
    await write(settings, dict.fromkeys(KEYS, b"value"))
    await write(settings, dict.fromkeys(KEYS))
    await wait_cleaned(settings)
    async with folding(settings) as app:
        table = app.chunk_tables["seen"]
        assert table.read_chunk(PARTITION, KEYS) == {}
        assert table.end(PARTITION) == await end_of(settings, changelog(settings))
        await append(settings, PARTITION, "chunk")
        await until(lambda: table.read(PARTITION, b"1") == b"value" or app.crashed)
        assert not app.crashed


async def test_a_table_that_may_have_missed_deleted_tombstones_is_restored_from_scratch(
    settings: WorkerSettings,
) -> None:
    await write(settings, dict.fromkeys(KEYS, b"value"))
    async with folding(settings) as app:
        table = app.chunk_tables["seen"]
        assert len(table.read_chunk(PARTITION, KEYS)) == len(KEYS)
        table._db(PARTITION).put(SINCE_KEY, b"%d" % ((time.time() - DAY_S) * 1000))
    await configure(settings, **IN_A_HURRY)
    await write(settings, dict.fromkeys(KEYS))
    await wait_cleaned(settings)
    async with folding(settings) as app:
        assert app.chunk_tables["seen"].scan(PARTITION, b"", 99) == {}
        await append(settings, PARTITION, "chunk")
        await until(lambda: app.chunk_tables["seen"].read(PARTITION, b"1") or app.crashed)
        assert not app.crashed


async def test_a_changelog_whose_last_offset_has_no_record_is_recovered_by_owner_and_standby(
    settings: WorkerSettings, tmp_path: Path
) -> None:
    """Faust's own recovery would wait for the last offset forever."""
    await write(settings, dict.fromkeys(KEYS, b"value"))
    await write_marker(settings)
    one = msgspec.structs.replace(settings, standby_replicas=1)
    await _recover_both(one, second_settings(one, tmp_path / "two"))
    # RocksDB unlocks a folder only when the last reference to the database is gone.
    gc.collect()
    # Recover once more, with a table that has already applied the last record.
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


async def never(chunk: Chunk) -> None:
    raise AssertionError(f"{chunk!r} was folded")


async def test_a_worker_subscribes_to_all_topics_or_to_none(
    settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    joined: list[Any] = []

    async def subscribe(_consumer: Any, topics: Any) -> None:
        joined.append(topics)

    monkeypatch.setattr(driver.Consumer, "subscribe", subscribe)
    app = create_app(settings)
    everything = {topic.name for topic in all_topics(settings.names, settings.group_id)}
    await app.consumer.subscribe(everything - {changelog(settings).topic})
    assert joined == []
    await app.consumer.subscribe(everything)
    assert joined == [everything]
    # The consumer's thread was never started, but its event loop is open.
    app.consumer._thread.thread_loop.close()


async def test_records_of_a_former_owner_are_refused_after_a_worker_has_claimed_the_changelog(
    settings: WorkerSettings,
) -> None:
    """Otherwise, the changelog could get records that the new owner's table lacks."""
    identity = f"{settings.group_id}-{settings.names.webhooks}-{PARTITION}"
    late = [OutRecord(b"late", b"value")]
    async with writer(settings.bootstrap_servers[0], identity) as former:
        await send_to_partition(former, *changelog(settings), [OutRecord(b"early", b"value")])
        async with folding(settings) as app:
            table = app.chunk_tables["seen"]
            assert table.scan(PARTITION, b"", 9) == {b"early": b"value"}
            with pytest.raises(ProducerFenced):
                await send_to_partition(former, *changelog(settings), late)
            assert table.end(PARTITION) == await end_of(settings, changelog(settings)) == 2


async def test_a_lost_fetch_of_a_standby_ends_the_worker(
    settings: WorkerSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faust's own recovery lost fetches, skipped the gap, and let the standby take over."""
    one = msgspec.structs.replace(settings, standby_replicas=1)
    async with folding(one) as first, folding(second_settings(one, tmp_path / "two")) as second:
        apps = (first, second)
        await until(lambda: all(app.tables.standbys_ready for app in apps))
        await ready(*apps)
        (standby,) = [app for app in apps if not app.chunk_tables["seen"].is_active(PARTITION)]
        lost = lose_next(standby.tables.recovery._reader, monkeypatch)
        # The read that is already under way still returns its chunk.
        for key in ("chunk", "another chunk", "one chunk more"):
            await append(one, PARTITION, key)
            await until(lambda: lost or standby.chunk_tables["seen"].read(PARTITION, b"1"))
        await until(lambda: standby.crashed)
        assert "was fetched from beyond the table's end" in repr(standby.crash_reason)


def lose_next(reader: ChangelogReader, monkeypatch: pytest.MonkeyPatch) -> list[ChangelogChunk]:
    """Make a reader lose the next chunk that it reads."""
    lost: list[ChangelogChunk] = []
    read_all = reader.read

    async def read(wait_s: float) -> list[ChangelogChunk]:
        chunks = await read_all(wait_s)
        if chunks and not lost:
            lost.append(chunks.pop())
        return chunks

    monkeypatch.setattr(reader, "read", read)
    return lost


async def test_a_single_record_is_found_however_long_the_broker_takes_to_send_it(
    settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    await write(settings, dict.fromkeys(KEYS, b"value"))
    # No broker answers within this time.
    monkeypatch.setattr(changelogs, "_LOOK_WAIT_S", 0.0005)
    tp = TP(*changelog(settings))
    reader = ChangelogReader(settings)
    await reader.start()
    try:
        async with asyncio.timeout(20):
            found = (await reader.look_up({tp: 0}))[tp]
    finally:
        await reader.close()
    assert found.mark is not None
    assert (found.begin, found.mark.offset) == (0, 0)


async def test_the_end_offsets_of_changelogs_are_requested_until_a_suspended_broker_answers(
    settings: WorkerSettings, kafka: EmbeddedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    await write(settings, dict.fromkeys(KEYS, b"value"))
    tp = TP(*changelog(settings))
    reader = ChangelogReader(settings)
    await reader.start()
    client = reader._consumer
    asked = 0

    async def ask(tps: list[TopicPartition]) -> Any:
        nonlocal asked
        asked += 1
        # The broker is suspended for longer than this timeout.
        client._request_timeout_ms = 200
        return await type(client).end_offsets(client, tps)

    monkeypatch.setattr(client, "end_offsets", ask)
    kafka.pause()
    try:
        ends = asyncio.create_task(reader.ends([tp]))
        await until(lambda: asked > 1)
        kafka.resume()
        assert await ends == {tp: len(KEYS)}
    finally:
        kafka.resume()
        await reader.close()


async def test_a_worker_ends_and_the_error_has_the_remedy_if_records_of_a_changelog_were_deleted(
    settings: WorkerSettings,
) -> None:
    await write(settings, dict.fromkeys(KEYS, b"value"))
    async with folding(settings):
        pass
    gc.collect()
    await write(settings, dict.fromkeys(KEYS, b"newer"))
    end = await end_of(settings, changelog(settings))
    await configure(settings, **{"cleanup.policy": "compact,delete"})
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.bootstrap_servers)
    await admin.start()
    try:
        await admin.delete_records({changelog(settings): RecordsToDelete(before_offset=end)})
    finally:
        await admin.close()
    await configure(settings)

    async with running(settings, never) as app:
        await until(lambda: app.crashed)
    reason = repr(app.crash_reason)
    assert f"holds offsets {end} to {end + 1}, and this worker's table ends at 11" in reason
    assert "plexy-ledger rebuild" in reason
