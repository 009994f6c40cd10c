"""If a worker's state does not match the log, the worker folds from scratch, or does not run.

The worker must never show a state in which facts are missing, even after somebody deleted, moved or
mixed up the folder of the tables, their changelogs, or the topics between the agents.
"""

import asyncio
import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from aiokafka import TopicPartition

from cli.kafka.broker import EmbeddedKafka
from cli.kafka.distribution import KafkaCache
from runtime.kafka.batches import OutRecord, send_to_partition
from runtime.kafka.topics import TopicSettings, ensure_topics
from tests.kafka.harness import (
    WorkerProcess,
    commit,
    deliver,
    environment,
    moved,
    names_of,
    positions,
    producer,
    read_topic,
    run,
    second_of,
    until,
    wait_folded,
)
from tests.kafka.topics import delete_records

pytestmark = pytest.mark.timeout(240)


def payments(count: int, shop: str) -> list[dict[str, Any]]:
    """Return one payment for each order of a shop; the payments of all shops have the same ids."""
    return [
        {
            "id": f"evt_{n}",
            "type": "payment.succeeded",
            "created": 1_700_000_000 + n,
            "data": {
                "id": f"pay_{n}",
                "amount": 100 + n,
                "currency": "KZT",
                "order": f"{shop}_{n}",
            },
        }
        for n in range(count)
    ]


def fold(env: Mapping[str, str], bodies: list[dict[str, Any]]) -> None:
    """Deliver payments, and fold them with a worker that is stopped afterwards."""
    with WorkerProcess(env) as worker:
        worker.wait_ready()
        deliver(env, bodies)
        wait_folded(env, worker)
        worker.stop()


def latest(env: Mapping[str, str], topic: str) -> dict[bytes, Any]:
    return {record.key: json.loads(record.value) for record in read_topic(env, topic)}


@pytest.fixture
def env(kafka: EmbeddedKafka, tmp_path: Path) -> dict[str, str]:
    return environment(kafka.bootstrap, tmp_path / "ledger")


def test_tables_that_belong_to_a_different_kafka_are_not_used(
    env: dict[str, str], kafka_cache: KafkaCache, tmp_path: Path
) -> None:
    """The right Kafka has longer changelogs, so they contain the offsets of the wrong tables."""
    fold(env, payments(80, "here"))
    with EmbeddedKafka(tmp_path / "other", cache=kafka_cache) as other:
        mixed_up = moved(env, tmp_path / "there")
        fold(mixed_up | {"LEDGER_KAFKA_BOOTSTRAP": other.bootstrap}, payments(40, "there"))
    with WorkerProcess(mixed_up) as worker:
        worker.wait_ready()
        statuses = {n: worker.get(f"/orders/here_{n}")[0] for n in range(80)}
        assert set(statuses.values()) == {200}, statuses
        assert worker.get("/orders/there_1")[0] == 404


def test_a_new_version_folds_the_whole_log_to_the_same_documents_and_entries(
    env: dict[str, str],
) -> None:
    fold(env, payments(60, "shop"))
    names = names_of(env)
    before = latest(env, names.orders), latest(env, names.entries)
    again = env | {"LEDGER_VERSION": "2"}
    anew = names_of(again)
    with WorkerProcess(again) as worker:
        worker.wait_ready()
        wait_folded(again, worker)
        for n in (0, 59):
            assert worker.get(f"/orders/shop_{n}") == (200, before[0][f"shop_{n}".encode()])
    assert len(before[0]) == len(before[1]) == 60
    assert (latest(env, anew.orders), latest(env, anew.entries)) == before
    # The new version wrote nothing to the old version's topics.
    assert len(read_topic(env, names.orders)) == len(read_topic(env, names.entries)) == 60


@pytest.mark.parametrize(("committed", "deleted_before"), [(1, 5), (1000, 0)])
async def test_a_worker_ends_if_a_topic_lost_the_records_at_the_last_commit(
    env: dict[str, str], committed: int, deleted_before: int
) -> None:
    """Records were deleted before they were folded, or the topic ends before the commit."""
    await asyncio.to_thread(fold, env, payments(40, "shop"))
    partition = TopicPartition(names_of(env).events, 0)
    await delete_records(env, partition, deleted_before)
    await commit(env, partition, committed)
    with WorkerProcess(env) as worker:
        assert await asyncio.to_thread(worker.wait, 60) != 0
        log = worker.log_file.read_text()
    assert f"{partition.topic}[0] is folded up to offset {committed}, but holds" in log
    assert "`plexy-ledger rebuild` folds the whole log of record from scratch" in log


async def test_a_topic_between_the_agents_must_still_have_its_first_record_if_nothing_is_committed(
    env: dict[str, str],
) -> None:
    """Kafka forgets the commits of a group that was empty for a week, and deletes old records."""
    await ensure_topics(TopicSettings.from_environment(env))
    partition = TopicPartition(names_of(env).events, 2)
    async with producer(env["LEDGER_KAFKA_BOOTSTRAP"]) as client:
        records = [OutRecord(b"key", b"value")] * 3
        await send_to_partition(client, partition.topic, partition.partition, records)
    await delete_records(env, partition, 2)
    with WorkerProcess(env) as worker:
        assert await asyncio.to_thread(worker.wait, 60) != 0
        assert "it is unknown whether the earlier records were folded" in worker.tail()


def test_a_running_worker_ends_if_records_are_deleted_before_it_folds_them(
    env: dict[str, str],
) -> None:
    with WorkerProcess(env) as worker:
        worker.wait_ready()
        deliver(env, payments(40, "shop"))
        wait_folded(env, worker)
        worker.freeze()
        # A fetch that was already under way may still return the first deliveries.
        for more in ("first", "second"):
            deliver(env, [each | {"id": f"{more}_{each['id']}"} for each in payments(40, "shop")])
        for tp, position in positions(env).items():
            if tp.topic == names_of(env).webhooks and position.committed < position.end - 1:
                asyncio.run(delete_records(env, tp, position.end - 1))
        worker.go_on()
        assert worker.wait(60) != 0
        assert "records were deleted before they were folded" in worker.tail()


def test_a_worker_ends_if_the_log_loses_records_while_the_worker_runs(
    env: dict[str, str], kafka_cache: KafkaCache, tmp_path: Path
) -> None:
    """A failing disk can cause this loss.

    If the worker continued, it would never fold new records whose offsets it has already folded.
    """
    with EmbeddedKafka(tmp_path / "own", cache=kafka_cache) as broker:
        env["LEDGER_KAFKA_BOOTSTRAP"] = broker.bootstrap
        with WorkerProcess(env) as worker:
            worker.wait_ready()
            deliver(env, payments(40, "shop"))
            wait_folded(env, worker)
            broker.kill()
            for partition in range(4):
                shutil.rmtree(broker.folder / "data" / f"{names_of(env).webhooks}-{partition}")
            broker.start()
            until(lambda: deliver(env, payments(4, "again")) is None, within_s=60, what="a leader")
            assert worker.wait(within_s=60) != 0
            log = worker.log_file.read_text()
    assert "the topic lost records" in log


FAILS_IN_RECOVERY = """
import os
from processors.engine.tables import ChunkTable
def fails(*args, **options):
    raise OSError("the disk says no")
ChunkTable.apply = fails
from processors.settings import WorkerSettings
from processors.worker import run
run(WorkerSettings.from_environment(os.environ))
"""


def test_a_worker_ends_if_a_table_cannot_be_recovered(env: dict[str, str]) -> None:
    """Faust's own recovery would log a warning, and the worker would serve an incomplete table."""
    fold(env, payments(20, "shop"))
    shutil.rmtree(Path(env["LEDGER_DATA_DIR"]) / "tables")
    with WorkerProcess(env, [sys.executable, "-c", FAILS_IN_RECOVERY]) as worker:
        statuses = set()

        def ended() -> bool:
            statuses.add(worker.get("/readyz")[0])
            return worker.process is not None and worker.process.poll() is not None

        until(ended, within_s=60, what="the end of the worker")
        assert worker.wait(1) != 0
    assert statuses <= {0, 503}
    assert "the disk says no" in worker.log_file.read_text()


JOINS_WITH_A_PART = """
import os
from faust.transport.drivers import aiokafka as driver
from processors.engine.transport import Consumer
def subscribe(consumer, topics):
    sources = {topic for topic in topics if "changelog" not in topic}
    return driver.Consumer.subscribe(consumer, sources)
Consumer.subscribe = subscribe
from processors.settings import WorkerSettings
from processors.worker import run
run(WorkerSettings.from_environment(os.environ))
"""


def test_nothing_is_folded_if_a_source_was_assigned_without_its_changelog(
    env: dict[str, str], tmp_path: Path
) -> None:
    """The group's leader makes this assignment if a member has subscribed to only some topics.

    If a worker folded nevertheless, it would use tables that it has not recovered, and lose facts.
    """
    apart = "nothing is folded until the next rebalance"
    with WorkerProcess(env) as worker:
        worker.wait_ready()
        deliver(env, payments(40, "shop"))
        wait_folded(env, worker)
        with WorkerProcess(
            second_of(env, tmp_path / "part"), [sys.executable, "-c", JOINS_WITH_A_PART]
        ) as member:
            for each in (worker, member):
                until(lambda each=each: each.logged(apart), within_s=60, what=apart)
            before = positions(env)
            again = [each | {"id": f"again_{each['id']}"} for each in payments(40, "shop")]
            deliver(env, again)
            until(lambda: worker.get("/readyz")[0] == 503, within_s=10, what="not ready")
            assert {tp: at.committed for tp, at in positions(env).items()} == {
                tp: at.committed for tp, at in before.items()
            }
        # The group notices the end of the killed member only when the member's session has ended.
        worker.wait_ready(60)
        wait_folded(env, worker)
        code, output = run(env | {"LEDGER_ALLOW_UNSIGNED": "true"}, "verify")
        assert code == 0, output
