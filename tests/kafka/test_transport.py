"""The transport of chunks keeps its promises with a real broker and the pinned faust-streaming.

The app runs in the test's own event loop, with one agent whose work the test can delay.
"""

import asyncio
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.consumer.fetcher import OffsetResetStrategy
from aiokafka.errors import ConsumerStoppedError
from faust.types import TP

from ledger.topics import MAX_RECORD_BYTES
from processors.engine import transport
from processors.engine.chunk import Chunk, RevokedError
from processors.engine.tables import CLAIM_KEY
from processors.settings import WorkerSettings
from processors.topology import LedgerApp
from runtime.kafka.batches import OutRecord, send_by_key, send_to_partition
from tests.fakes import until
from tests.kafka.harness import PARTITIONS, producer, read_topic
from tests.kafka.in_process import (
    WARNINGS_OF_FAUST,
    append,
    committed,
    keep,
    ready,
    running,
    second_settings,
)

pytestmark = WARNINGS_OF_FAUST


async def idle(_: Chunk) -> None:
    """Do nothing with a chunk."""


def in_flight(*apps: LedgerApp) -> int:
    return sum(
        app.consumer.offsets.in_flight(tp) for app in apps for tp in app.consumer.assignment()
    )


def values(chunk: Chunk) -> list[str]:
    return [record.value.decode() for record in chunk.records]


async def test_a_commit_never_passes_a_chunk_that_is_not_done(settings: WorkerSettings) -> None:
    held, started = asyncio.Event(), []

    async def work(chunk: Chunk) -> None:
        started.extend(values(chunk))
        if "stuck" in values(chunk):
            await held.wait()

    async with running(settings, work) as app:
        await ready(app)
        tp = TP(app.names.webhooks, 0)
        await append(settings, 0, "first")
        await until(lambda: app.consumer._committed_offset.get(tp) == 1)
        await append(settings, 0, "stuck")
        await until(lambda: "stuck" in started)
        # The agent and other partitions continue, but the stuck chunk must not be committed.
        await append(settings, 0, "behind")
        await append(settings, 1, "elsewhere")
        await until(lambda: app.consumer._committed_offset.get(TP(tp.topic, 1)) == 1)
        await app.consumer.commit()
        assert await committed(settings, tp) == 1
        held.set()
        await until(lambda: app.consumer._committed_offset.get(tp) == 3)
        assert await committed(settings, tp) == 3


async def test_chunks_of_one_partition_stay_in_order_and_chunks_of_different_partitions_overlap(
    settings: WorkerSettings,
) -> None:
    at_work: dict[int, int] = defaultdict(int)
    seen: dict[int, list[int]] = defaultdict(list)
    together = 0

    async def work(chunk: Chunk) -> None:
        nonlocal together
        at_work[chunk.partition] += 1
        assert at_work[chunk.partition] == 1, "two chunks of one partition at once"
        together = max(together, sum(at_work.values()))
        await asyncio.sleep(0.01 * (len(chunk.records) % 3))
        seen[chunk.partition].extend(record.offset for record in chunk.records)
        at_work[chunk.partition] -= 1

    async with running(settings, work) as app, producer(settings.bootstrap_servers[0]) as client:
        await ready(app)
        total = 600
        for start in range(0, total, 20):
            records = [OutRecord(b"k%d" % n, b"v") for n in range(start, start + 20)]
            await send_by_key(client, app.names.webhooks, records, PARTITIONS)
        await until(lambda: sum(map(len, seen.values())) >= total)
    for offsets in seen.values():
        assert offsets == list(range(len(offsets)))
    assert together > 1


async def test_records_larger_than_a_fetch_are_delivered_while_other_partitions_are_busy(
    settings: WorkerSettings,
) -> None:
    """Kafka sends a batch that is larger than a fetch only if it is the first batch of the fetch.

    The partition of the first batch is random.
    """
    large = b"x" * (MAX_RECORD_BYTES - 1024)
    sizes: dict[int, list[int]] = defaultdict(list)

    async def work(chunk: Chunk) -> None:
        sizes[chunk.partition].extend(len(record.value) for record in chunk.records)

    async def busy(client: AIOKafkaProducer, topic: str) -> None:
        while True:
            for partition in (2, 3):
                await send_to_partition(client, topic, partition, [OutRecord(b"k", b"v")] * 100)

    async with running(settings, work) as app, producer(settings.bootstrap_servers[0]) as client:
        await ready(app)
        others = asyncio.create_task(busy(client, app.names.webhooks))
        await until(lambda: sizes[2] and sizes[3])
        for partition in (0, 1):
            records = [OutRecord(b"k", large), OutRecord(b"k", b"v"), OutRecord(b"k", large)]
            await send_to_partition(client, app.names.webhooks, partition, records)
        await until(lambda: [len(large), 1, len(large)] == sizes[0] == sizes[1] or others.done())
        assert not app.crashed, app.crash_reason
        assert others.cancel()


async def test_a_rebalance_forgets_the_chunks_in_flight_and_redelivers_them(
    settings: WorkerSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first app loses some partitions, but the chunks of all partitions are redelivered."""
    monkeypatch.setattr(transport, "_FINISH_WITHIN_S", 0.3)
    old_run, new_run = asyncio.Event(), asyncio.Event()
    started: list[str] = []
    refused: list[str] = []
    ended: list[str] = []

    async def work(chunk: Chunk) -> None:
        old = chunk.generation == generation
        started.extend(values(chunk))
        await (old_run if old else new_run).wait()
        if old:
            with pytest.raises(RevokedError):
                await keep(first.chunk_tables["seen"], chunk, {b"late": b"value"})
            refused.extend(values(chunk))
        else:
            ended.extend(values(chunk))

    generation = 0
    partitions = [TP(f"{settings.topic_prefix}plexy.webhooks", p) for p in range(PARTITIONS)]
    async with running(settings, work) as first:
        await ready(first)
        generation = first.consumer_generation_id
        for tp in partitions:
            await append(settings, tp.partition, f"stuck {tp.partition}")
        await until(lambda: len(started) == PARTITIONS)
        async with running(second_settings(settings, tmp_path / "second"), work) as second:
            await until(lambda: second.tables.actives_ready and len(second.consumer.assignment()))
            await ready(first, second)
            await until(lambda: in_flight(first, second) == PARTITIONS)
            # The old runs end only now, after the same chunks have been delivered again.
            old_run.set()
            await until(lambda: len(refused) == PARTITIONS)
            await until(lambda: len(started) == 2 * PARTITIONS)
            for app in (first, second):
                await app.consumer.commit()
            assert [await committed(settings, tp) for tp in partitions] == [0] * PARTITIONS
            new_run.set()
            for tp in partitions:
                await append(settings, tp.partition, f"later {tp.partition}")
            await until(lambda: len(ended) == 2 * PARTITIONS)
            for app in (first, second):
                await app.consumer.wait_empty()
            assert [await committed(settings, tp) for tp in partitions] == [2] * PARTITIONS
            assert in_flight(first, second) == 0
    changelog = first.chunk_tables["seen"].changelog_name
    env = {"LEDGER_KAFKA_BOOTSTRAP": settings.bootstrap_servers[0]}
    written = await asyncio.to_thread(read_topic, env, changelog)
    assert {record.key for record in written} == {CLAIM_KEY}


async def test_the_group_itself_decides_which_worker_owns_a_chunk(settings: WorkerSettings) -> None:
    """A worker that was suspended may still have an old generation of the group."""
    said: list[Any] = []

    async def work(chunk: Chunk) -> None:
        consumer = chunk._consumer
        said.append(await consumer.is_member(chunk.generation))
        await chunk.confirm_ours()
        real = app.consumer_generation_id
        app.consumer_generation_id = chunk.generation = real + 7
        chunk.ensure_ours()
        said.append(await consumer.is_member(chunk.generation))
        with pytest.raises(RevokedError):
            await chunk.confirm_ours()
        app.consumer_generation_id = chunk.generation = real
        said.append(await consumer.is_member(real))

    async with running(settings, work) as app:
        await ready(app)
        await append(settings, 0, "any")
        await until(lambda: len(said) == 3 or app.crashed)
    assert said == [True, False, True]


async def test_records_that_faust_drops_after_a_fetch_are_fetched_again(
    settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    next_chunk = transport.Consumer._next_chunk
    dropped: list[Any] = []

    async def drop_the_first(consumer: Any, tp: TP, records: list[Any]) -> Any:
        if not dropped:
            dropped.extend(records)
            return None
        return await next_chunk(consumer, tp, records)

    monkeypatch.setattr(transport.Consumer, "_next_chunk", drop_the_first)
    worked: list[str] = []

    async def work(chunk: Chunk) -> None:
        worked.extend(values(chunk))

    async with running(settings, work) as app:
        await ready(app)
        await append(settings, 0, "dropped")
        await until(lambda: dropped)
        await append(settings, 0, "behind it")
        await until(lambda: "behind it" in worked)
        assert worked == ["dropped", "behind it"]
        await app.consumer.wait_empty()
        assert await committed(settings, TP(app.names.webhooks, 0)) == 2


async def test_a_gap_in_the_offsets_of_the_log_is_skipped(settings: WorkerSettings) -> None:
    """The end of a transaction occupies an offset, but is not a record."""
    worked: list[str] = []

    async def work(chunk: Chunk) -> None:
        worked.extend(values(chunk))

    async with running(settings, work) as app:
        await ready(app)
        client = AIOKafkaProducer(
            bootstrap_servers=settings.bootstrap_servers, transactional_id=settings.group_id
        )
        async with client:
            for value in (b"one", b"two"):
                async with client.transaction():
                    await client.send(app.names.webhooks, value, partition=0)
        await until(lambda: len(worked) == 2)
        assert worked == ["one", "two"]
        await app.consumer.wait_empty()
        assert await committed(settings, TP(app.names.webhooks, 0)) == 3


async def test_a_partition_whose_position_is_being_reset_does_not_crash_the_worker(
    settings: WorkerSettings,
) -> None:
    """Every few seconds, Faust asks for the positions of idle partitions."""
    async with running(settings, idle) as app:
        await ready(app)
        tp = TP(app.names.webhooks, 0)
        thread = app.consumer._thread

        async def look() -> None:
            consumer = thread._ensure_consumer()
            assignment = consumer._subscription.subscription.assignment
            assignment.state_value(TopicPartition(*tp)).await_reset(OffsetResetStrategy.EARLIEST)
            thread.verify_event_path(time.monotonic(), tp)

        await thread.call_thread(look)


async def test_records_that_are_fetched_before_faust_resumes_the_flow_are_not_lost(
    settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faust clears the agents' queues after the recovery, so no record may be queued earlier."""
    seek = transport.Consumer.perform_seek

    async def slow_seek(consumer: transport.Consumer) -> None:
        await seek(consumer)
        # The fetch loop runs during this time, and must not deliver yet.
        await asyncio.sleep(1.5)

    monkeypatch.setattr(transport.Consumer, "perform_seek", slow_seek)
    partitions = [TP(f"{settings.topic_prefix}plexy.webhooks", p) for p in range(PARTITIONS)]
    for tp in partitions:
        await append(settings, tp.partition, f"early {tp.partition}")
    worked: list[str] = []

    async def work(chunk: Chunk) -> None:
        worked.extend(values(chunk))

    async with running(settings, work) as app:
        await until(lambda: len(worked) == PARTITIONS)
        await ready(app)
        await app.consumer.wait_empty()
        assert [await committed(settings, tp) for tp in partitions] == [1] * PARTITIONS
    assert sorted(worked) == sorted(f"early {tp.partition}" for tp in partitions)


async def test_an_exception_in_a_chunk_ends_the_app_and_the_chunk_is_not_committed(
    settings: WorkerSettings,
) -> None:
    async def work(chunk: Chunk) -> None:
        if "bad" in values(chunk):
            raise RuntimeError("unexpected")

    async with running(settings, work) as app:
        await ready(app)
        tp = TP(app.names.webhooks, 0)
        await append(settings, 0, "good")
        await until(lambda: app.consumer._committed_offset.get(tp) == 1)
        await append(settings, 0, "bad")
        await until(lambda: app.crashed)
        assert "unexpected" in repr(app.crash_reason)
    assert await committed(settings, tp) == 1


async def test_a_stopped_consumer_refuses_calls_on_its_thread(
    settings: WorkerSettings,
) -> None:
    async def answer() -> int:
        return 1

    async with running(settings, idle) as app:
        await ready(app)
        consumer = app.consumer
        assert await consumer.on_thread(answer) == 1
    async with asyncio.timeout(5):
        with pytest.raises(ConsumerStoppedError):
            await consumer.on_thread(answer)
        assert not await consumer.is_member(app.consumer_generation_id)


async def test_no_recovery_starts_if_a_rebalance_ends_while_the_worker_stops(
    settings: WorkerSettings,
) -> None:
    """If a recovery started, it would call the consumer's thread, which has ended, and fail."""
    async with running(settings, idle) as app:
        await ready(app)
    recovery = app.tables.recovery
    await recovery.on_rebalance(set(), set(), set(), app.consumer_generation_id)
    assert recovery._cycle is None
