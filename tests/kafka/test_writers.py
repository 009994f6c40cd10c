"""The broker itself refuses late writes of a worker that no longer owns the partition."""

import asyncio
import gc
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import ProducerFenced

from cli.kafka.broker import EmbeddedKafka
from processors.engine import effects, writers
from processors.engine.chunk import Chunk, RevokedError
from processors.engine.effects import Effects, folding
from processors.engine.membership import clock_s
from processors.engine.writers import Writer, next_epoch
from processors.settings import WorkerSettings
from processors.topology import LedgerApp
from runtime.kafka.batches import OutRecord, send, send_to_partition
from runtime.kafka.sender import RETRY_AFTER_S, Sender
from tests.fakes import until
from tests.kafka.harness import PARTITIONS, read_topic, writer
from tests.kafka.in_process import WARNINGS_OF_FAUST, append, committed, ready, running
from tests.kafka.topics import create

pytestmark = WARNINGS_OF_FAUST

PARTITION = 2


async def write(to: Any, topic: str, *keys: str) -> int:
    records = [OutRecord(key.encode(), b"value") for key in keys]
    return (await send_to_partition(to, topic, PARTITION, records)).last


async def keys_of(settings: WorkerSettings, topic: str) -> list[str]:
    env = {"LEDGER_KAFKA_BOOTSTRAP": settings.bootstrap_servers[0]}
    records = await asyncio.to_thread(read_topic, env, topic)
    return [record.key.decode() for record in records if record.partition == PARTITION]


async def test_records_of_the_old_owner_are_refused_after_the_first_record_of_the_new_owner(
    settings: WorkerSettings,
) -> None:
    bootstrap, topic = settings.bootstrap_servers[0], settings.names.orders
    async with writer(bootstrap, topic) as old:
        assert await write(old, topic, "old 1", "old 2") == 1
        async with writer(bootstrap, topic) as new:
            # This write does no harm, because the new owner folds the same records, and writes the
            # same key again.
            assert await write(old, topic, "old 3") == 2
            assert await write(new, topic, "new 1") == 3
            with pytest.raises(ProducerFenced):
                await write(old, topic, "old 4")
            assert await write(new, topic, "new 2") == 4
    assert await keys_of(settings, topic) == ["old 1", "old 2", "old 3", "new 1", "new 2"]


async def test_waiting_writes_of_a_closed_writer_raise_an_error_about_the_lost_partition(
    settings: WorkerSettings, kafka: EmbeddedKafka
) -> None:
    async with writer(settings.bootstrap_servers[0], "any") as closed:
        await write(closed, settings.names.orders, "there")
        await asyncio.to_thread(kafka.kill)
        try:
            waiting = [
                asyncio.create_task(write(closed, settings.names.orders, key))
                for key in ("tried in vain", "waits behind it")
            ]
            # Wait until the batch was tried, and queued again for a retry.
            await until(lambda: closed._sender._resting)
            closed.close()
            for each in waiting:
                with pytest.raises(RevokedError):
                    await each
        finally:
            await asyncio.to_thread(kafka.start)
    assert await keys_of(settings, settings.names.orders) == ["there"]


async def test_the_batches_of_several_writers_leave_in_one_request_but_are_fenced_separately(
    settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    bootstrap, names = settings.bootstrap_servers[0], settings.names
    requests: list[Any] = []
    async with AIOKafkaProducer(bootstrap_servers=bootstrap) as client:
        sender = Sender(client.client)
        old, other = [
            Writer(sender, await next_epoch(client.client, name)) for name in ("taken", "other")
        ]
        for to, topic in ((old, names.orders), (other, names.entries), (other, names.rejected)):
            await write(to, topic, "old 1")
        async with writer(bootstrap, "taken") as new:
            await write(new, names.orders, "new 1")
        send_request = client.client.send

        async def send_counted(node: int, request: Any, **options: Any) -> Any:
            requests.append(request)
            return await send_request(node, request, **options)

        monkeypatch.setattr(client.client, "send", send_counted)
        fenced, *written = await asyncio.gather(
            write(old, names.orders, "old 2"),
            write(other, names.entries, "other"),
            write(other, names.rejected, "other"),
            return_exceptions=True,
        )
    assert isinstance(fenced, ProducerFenced)
    assert written == [1, 1]
    assert len(requests) == 1
    assert await keys_of(settings, names.orders) == ["old 1", "new 1"]


async def test_the_owner_that_the_group_has_chosen_takes_the_epoch_back_from_another_worker(
    settings: WorkerSettings,
) -> None:
    """A worker that was suspended before its first write may take the epoch when it resumes."""
    worked: list[str] = []

    async def work(chunk: Chunk) -> None:
        topic = app.names.orders

        async def send(to: Writer) -> int:
            return await write(to, topic, f"ours {len(worked)}")

        await app.writers.write(chunk, send)
        worked.append("first")
        async with writer(settings.bootstrap_servers[0], identity_of(app, chunk)) as other:
            await write(other, topic, "another's")
            await app.writers.write(chunk, send)
            worked.append("second")
            with pytest.raises(ProducerFenced):
                await write(other, topic, "another's, too late")

    async with running(settings, work) as app:
        await ready(app)
        await append(settings, PARTITION, "any")
        await until(lambda: len(worked) == 2 or app.crashed)
        assert not app.crashed, app.crash_reason
        await until(app.consumer.offsets.partitions)
    assert await keys_of(settings, settings.names.orders) == ["ours 0", "another's", "ours 1"]


async def test_a_chunk_that_kafka_fences_after_its_outputs_is_folded_again_after_the_next_start(
    settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table lacks another writer's record, which the worker reads only after a restart."""
    folds: list[Chunk] = []
    announced: list[int] = []

    def fold(chunk: Chunk, effects: Effects) -> None:
        folds.append(chunk)
        effects.publish(app.names.orders, [OutRecord(b"key", b"fold %d" % len(folds))])
        effects.keep([(b"key", b"fold %d" % len(folds))])
        effects.then(lambda: announced.append(len(folds)))

    async def fenced_in_the_changelog(producer: Any, outputs: Any) -> Any:
        table = app.chunk_tables["seen"]
        if len(folds) == 1 and table.changelog_name in {tp.topic for tp in outputs}:
            identity = identity_of(app, folds[0])
            async with writer(settings.bootstrap_servers[0], identity) as other:
                await write(other, table.changelog_name, "another's")
        return await send(producer, outputs)

    async def work(chunk: Chunk) -> None:
        await folding(app, "hop", app.chunk_tables["seen"], PARTITIONS, fold)(chunk)

    monkeypatch.setattr(effects, "send", fenced_in_the_changelog)
    async with running(settings, work) as app:
        await ready(app)
        await append(settings, PARTITION, "any")
        await until(lambda: app.crashed)
        assert "as offsets 2 to 3, but the table ends at 1" in repr(app.crash_reason)
        assert (len(folds), announced) == (2, [])
    # RocksDB unlocks a folder only when the last reference to the database is gone.
    del app
    gc.collect()
    async with running(settings, work) as app:
        await until(lambda: announced or app.crashed)
        assert not app.crashed, app.crash_reason
        assert (len(folds), announced) == (3, [3])
        assert app.chunk_tables["seen"].scan(PARTITION, b"", 9) == {
            b"another's": b"value",
            b"key": b"fold 3",
        }
        await until(app.consumer.offsets.partitions)
    env = {"LEDGER_KAFKA_BOOTSTRAP": settings.bootstrap_servers[0]}
    orders = await asyncio.to_thread(read_topic, env, settings.names.orders)
    assert [record.value for record in orders] == [b"fold 1", b"fold 2", b"fold 3"]


async def test_a_worker_that_the_group_has_forgotten_drops_its_chunk_and_writes_nothing(
    settings: WorkerSettings,
) -> None:
    dropped: list[Chunk] = []

    def fold(_: Chunk, effects: Effects) -> None:
        effects.publish(app.names.orders, [OutRecord(b"key", b"value")])

    async def work(chunk: Chunk) -> None:
        # The group never had this generation of the worker. A worker asks the group each time it
        # creates a writer. `forget` removes the existing writers, so the worker needs a new writer.
        app.consumer_generation_id = chunk.generation = chunk.generation + 7
        app.writers.forget()
        with pytest.raises(RevokedError) as revoked:
            await folding(app, "hop", app.chunk_tables["seen"], PARTITIONS, fold)(chunk)
        dropped.append(chunk)
        raise revoked.value

    async with running(settings, work) as app:
        await ready(app)
        await append(settings, PARTITION, "any")
        await until(lambda: dropped and not app.consumer.at_work)
        assert not app.crashed, app.crash_reason
        assert app.consumer.offsets.committable(dropped[0].tp) in {None, 0}
        assert await committed(settings, dropped[0].tp) == 0
    env = {"LEDGER_KAFKA_BOOTSTRAP": settings.bootstrap_servers[0]}
    assert await asyncio.to_thread(read_topic, env, settings.names.orders) == []


async def test_the_identity_of_a_writer_is_renewed_before_kafka_forgets_it(
    settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs: list[int] = []

    async def work(chunk: Chunk) -> None:
        async def send(to: Writer) -> None:
            epochs.append(to.epoch.number)

        await app.writers.write(chunk, send)
        await app.writers.write(chunk, send)
        # The clock is a day ahead, as it is after a machine was suspended for a day.
        monkeypatch.setattr(writers, "clock_s", lambda: clock_s() + 24 * 3600)
        await app.writers.write(chunk, send)

    async with running(settings, work) as app:
        await ready(app)
        await append(settings, PARTITION, "any")
        await until(lambda: len(epochs) == 3 or app.crashed)
    assert epochs == [0, 0, 1]


def identity_of(app: LedgerApp, chunk: Chunk) -> str:
    return f"{app.settings.group_id}-{chunk.tp.topic}-{chunk.tp.partition}"


async def test_a_writer_whose_broker_dies_during_the_request_for_an_epoch_asks_again(
    settings: WorkerSettings, kafka: EmbeddedKafka
) -> None:
    async with AIOKafkaProducer(bootstrap_servers=settings.bootstrap_servers) as client:
        assert await client.client.ready(client.client.get_random_node())
        kafka.pause()
        asking = asyncio.create_task(next_epoch(client.client, "any"))
        try:
            # The paused broker has the request, and will not answer it.
            await until(lambda: any(each._requests for each in client.client._conns.values()))
        finally:
            await asyncio.to_thread(kafka.kill)
            await asyncio.to_thread(kafka.start)
        async with asyncio.timeout(60):
            epoch = await asking
        await write(Writer(Sender(client.client), epoch), settings.names.orders, "there")


async def test_the_leaders_of_a_topic_stay_known_after_a_request_about_another_topic(
    settings: WorkerSettings,
) -> None:
    """Otherwise, the worker would wait for a leader that no client asks for, and then end."""
    names = settings.names
    async with AIOKafkaProducer(bootstrap_servers=settings.bootstrap_servers) as client:
        opened = Writer(Sender(client.client), await next_epoch(client.client, "any"))
        # A failure before the first write causes this update, which asks for all topics.
        await client.client.force_metadata_update()
        await write(opened, names.orders, "one")
        await client.client.add_topic(names.entries)
        assert client.client.cluster.available_partitions_for_topic(names.orders)


async def test_a_batch_waits_for_a_leader_longer_than_a_request_may_take(
    settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that was down for long names no leader at first. This once ended a worker."""
    async with writer(settings.bootstrap_servers[0], "any") as opened:
        await write(opened, settings.names.orders, "known")
        with monkeypatch.context() as leaderless:
            cluster = opened._sender.client.cluster
            leaderless.setattr(cluster, "leader_for_partition", lambda _tp: -1)
            writing = asyncio.create_task(write(opened, settings.names.orders, "late"))
            await asyncio.wait({writing}, timeout=10 * RETRY_AFTER_S)
            assert not writing.done(), writing.exception()
        await writing
    assert await keys_of(settings, settings.names.orders) == ["known", "late"]


async def test_a_writer_waits_for_a_topic_that_its_broker_does_not_know_yet(
    kafka: EmbeddedKafka, settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that has just started may not know its topics before the client gives up."""
    topic = f"{settings.topic_prefix}late"
    async with writer(kafka.bootstrap, "late") as late:
        client = late._sender.client
        wait, waits = client._wait_on_metadata, []

        async def wait_shorter(topic: str) -> Any:
            waits.append(topic)
            client._request_timeout_ms = 200
            return await wait(topic)

        monkeypatch.setattr(client, "_wait_on_metadata", wait_shorter)
        sent = asyncio.create_task(send_to_partition(late, topic, 0, [OutRecord(b"key", b"value")]))
        await until(lambda: len(waits) > 1 or sent.done())
        await create({"LEDGER_KAFKA_BOOTSTRAP": kafka.bootstrap}, topic)
        assert (await sent).last == 0
