"""Kafka forgets producer identities that are idle, so a worker renews its identities.

A worker refuses to start if Kafka forgets too early. The broker of these tests forgets an identity
that has been idle for two seconds.
"""

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from faust.types import TP

from cli.kafka.broker import EmbeddedKafka
from cli.kafka.distribution import KafkaCache
from processors import topology
from processors.engine import writers
from processors.engine.chunk import Chunk
from processors.engine.writers import Writer
from processors.settings import WorkerSettings
from runtime.kafka import identities
from runtime.kafka.batches import OutRecord, send_to_partition
from tests.kafka.harness import WorkerProcess, environment, free_port, run, writer
from tests.kafka.in_process import WARNINGS_OF_FAUST, ready, running

pytestmark = [*WARNINGS_OF_FAUST, pytest.mark.timeout(240)]

PARTITION = 2


FORGETFUL = {
    "transactional.id.expiration.ms": "2000",
    "transaction.remove.expired.transaction.cleanup.interval.ms": "500",
}


@pytest.fixture(scope="module")
def kafka(
    kafka_cache: KafkaCache, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedKafka]:
    folder = tmp_path_factory.mktemp("forgetful")
    with EmbeddedKafka(folder, cache=kafka_cache, properties=FORGETFUL) as broker:
        yield broker


def producer_id(opened: Writer) -> int:
    return opened.epoch.producer_id


async def wait_forgotten(bootstrap: str, identity: str) -> None:
    """Wait until Kafka has forgotten an idle identity.

    A check renews the identity that it checks, so each attempt uses a new identity.
    """
    async with asyncio.timeout(60):
        for attempt in range(100):
            async with writer(bootstrap, f"{identity}-{attempt}") as first:
                await asyncio.sleep(0.5 * (attempt + 1))
                async with writer(bootstrap, f"{identity}-{attempt}") as second:
                    if producer_id(first) != producer_id(second):
                        return


async def test_kafka_forgets_an_idle_identity_and_no_longer_fences_its_former_owner(
    settings: WorkerSettings,
) -> None:
    """This is the reason why workers renew their identities."""
    bootstrap, topic = settings.bootstrap_servers[0], settings.names.orders
    async with writer(bootstrap, "idle") as former:
        await wait_forgotten(bootstrap, "any")
        async with writer(bootstrap, "idle") as next_owner:
            assert producer_id(next_owner) != producer_id(former)
            await send_to_partition(next_owner, topic, PARTITION, [OutRecord(b"key", b"new")])
            await send_to_partition(former, topic, PARTITION, [OutRecord(b"key", b"stale")])


async def test_a_worker_that_has_nothing_to_write_keeps_its_identities(
    settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identities, "LEAST_EXPIRATION_MS", 0)
    monkeypatch.setattr(writers, "_RENEWED_AFTER_S", 0.2)
    monkeypatch.setattr(topology, "_RENEWAL_EVERY_S", 0.2)
    bootstrap = settings.bootstrap_servers[0]
    identity = f"{settings.group_id}-{settings.names.webhooks}-{PARTITION}"

    async def work(chunk: Chunk) -> None:
        raise AssertionError(f"{chunk!r} was folded")

    async with running(settings, work) as app:
        await ready(app)
        own = app.writers._writers[TP(app.names.webhooks, PARTITION)]
        await wait_forgotten(bootstrap, "any")
        assert not app.crashed, app.crash_reason
        async with writer(bootstrap, identity) as next_owner:
            # A broker compares two epochs only if they belong to the same producer id.
            assert producer_id(next_owner) == producer_id(own)
            assert next_owner.epoch.number > own.epoch.number


def test_if_kafka_forgets_identities_too_early_no_worker_starts_and_doctor_reports_the_reason(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    env = environment(kafka.bootstrap, tmp_path / "ledger")
    with WorkerProcess(env) as worker:
        assert worker.wait(60) == 1
        log = worker.log_file.read_text()
    assert len(log.splitlines()) == 1
    said = "the brokers have transactional.id.expiration.ms=2000, expected at least 21600000"
    assert said in log
    assert "remove `transactional.id.expiration.ms` from the brokers' settings" in log
    code, output = run(env, "doctor", "worker")
    assert code == 1
    assert said in output
    assert "remove `transactional.id.expiration.ms` from the brokers' settings" in output


def test_a_worker_ends_and_names_the_remedy_if_its_broker_restarts_with_a_short_expiration(
    kafka_cache: KafkaCache, tmp_path: Path
) -> None:
    folder, port = tmp_path / "broker", free_port()
    with contextlib.ExitStack() as stack:
        with EmbeddedKafka(folder, cache=kafka_cache, port=port) as broker:
            env = environment(broker.bootstrap, tmp_path / "ledger")
            worker = stack.enter_context(WorkerProcess(env))
            worker.wait_ready()
        stack.enter_context(
            EmbeddedKafka(folder, cache=kafka_cache, port=port, properties=FORGETFUL)
        )
        reason = worker.reason_of_end(within_s=60)
    assert "the brokers have transactional.id.expiration.ms=2000, expected at least" in reason
    assert "remove `transactional.id.expiration.ms` from the brokers' settings" in reason
