"""A worker never folds from a wrong offset, even if its commits were moved or its topics shortened.

Any client with access to the group can change the group's commits. Topics become shorter when a
broker's disk is restored from an older copy, or when the leader lacks records. Only the tables show
which records were folded.
"""

import asyncio
import shutil
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from cli.kafka.broker import EmbeddedKafka
from cli.kafka.distribution import KafkaCache
from ledger.topics import TableName, changelog_name
from runtime.kafka.batches import OutRecord, send_to_partition
from tests.kafka.disks import Disk
from tests.kafka.harness import (
    PARTITIONS,
    WorkerProcess,
    commit,
    deliver,
    deliver_held,
    environment,
    group_of,
    moved,
    names_of,
    orders,
    positions,
    producer,
    run,
    second_of,
    until,
    wait_folded,
)

pytestmark = pytest.mark.timeout(300)

TABLES: list[TableName] = ["seen", "payments", "orders"]


def fold(env: dict[str, str], numbers: Iterable[int]) -> None:
    """Deliver orders, and fold them with a worker that is stopped afterwards."""
    with WorkerProcess(env) as worker:
        worker.wait_ready()
        deliver(env, orders(numbers))
        wait_folded(env, worker)
        worker.stop()


def wait_served(worker: WorkerProcess, numbers: Iterable[int]) -> None:
    """Wait until a worker knows all these orders; fail at once if the worker ends."""
    missing = set(numbers)

    def served() -> bool:
        assert worker.process
        assert worker.process.poll() is None, f"the worker died:\n{worker.tail()}"
        missing.difference_update([n for n in missing if worker.get(f"/orders/ord_{n}")[0] == 200])
        return not missing

    until(served, within_s=60, what=f"orders {sorted(missing)}")


def assert_right(env: dict[str, str]) -> None:
    code, output = run(env | {"LEDGER_ALLOW_UNSIGNED": "true"}, "verify")
    assert code == 0, output


@pytest.fixture
def env(kafka: EmbeddedKafka, tmp_path: Path) -> dict[str, str]:
    return environment(kafka.bootstrap, tmp_path / "one", standby_replicas=0)


def test_no_record_is_skipped_if_a_commit_was_set_beyond_the_folded_records(
    env: dict[str, str],
) -> None:
    """`kafka-consumer-groups --reset-offsets --to-latest` sets such commits for all topics."""
    fold(env, range(20))
    deliver_held(env, range(20, 40), ["orders"])
    deliver_held(env, range(40, 60), ["payments", "orders"])
    deliver_held(env, range(60, 80), TABLES)
    for tp, at in positions(env).items():
        asyncio.run(commit(env, tp, at.end))
    with WorkerProcess(env) as worker:
        worker.wait_ready()
        wait_served(worker, range(80))
        wait_folded(env, worker)
        assert_right(env)
        told = worker.logged("commit beyond the folded records")
        assert {line["topic"] for line in told} == set(map(names_of(env).source_of, TABLES))
        worker.stop()


@pytest.fixture
def broker(kafka_cache: KafkaCache, tmp_path: Path) -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka(tmp_path / "own", cache=kafka_cache) as own:
        yield own


@pytest.fixture
def disk(broker: EmbeddedKafka, tmp_path: Path) -> Disk:
    return Disk(broker, tmp_path / "copies")


@pytest.fixture
def alone(broker: EmbeddedKafka, tmp_path: Path) -> dict[str, str]:
    """Return the settings of a ledger on the broker whose disk is restored."""
    return environment(broker.bootstrap, tmp_path / "one", standby_replicas=0)


def test_tables_that_are_newer_than_a_restored_broker_are_restored_from_their_changelogs(
    alone: dict[str, str], disk: Disk, tmp_path: Path
) -> None:
    """The changelogs have grown beyond the tables again, so offsets alone do not show the loss."""
    fold(alone, range(20))
    copy = disk.keep()
    fold(alone, range(20, 60))
    disk.bring_back(copy)
    fold(moved(alone, tmp_path / "two"), range(100, 160))
    with WorkerProcess(alone) as worker:
        worker.wait_ready()
        wait_served(worker, [*range(20), *range(100, 160)])
        assert {worker.get(f"/orders/ord_{n}")[0] for n in range(20, 60)} == {404}
        assert_right(alone)
        assert len(worker.logged("table restored from scratch")) == 3 * PARTITIONS
        worker.stop()


def test_records_that_a_changelog_lost_are_folded_again_from_the_source(
    alone: dict[str, str], disk: Disk, tmp_path: Path
) -> None:
    """All records are committed. In the first case, the worker has its tables.

    In the second case, the worker's folder is empty.
    """
    lost = [changelog_name(group_of(alone), table) for table in ("payments", "orders")]
    fold(alone, range(20))
    first = disk.keep()
    fold(alone, range(20, 60))
    second = disk.keep()
    for env in (alone, moved(alone, tmp_path / "new")):
        disk.bring_back(second, older=first, topics=lost)
        with WorkerProcess(env) as worker:
            worker.wait_ready()
            wait_served(worker, range(60))
            wait_folded(alone, worker)
            assert_right(alone)
            worker.stop()


def test_a_changelog_that_has_lost_everything_is_rebuilt_from_the_source(
    alone: dict[str, str], broker: EmbeddedKafka
) -> None:
    fold(alone, range(20))
    broker.stop()
    for partition in range(PARTITIONS):
        shutil.rmtree(
            broker.folder / "data" / f"{changelog_name(group_of(alone), 'orders')}-{partition}"
        )
    broker.start()
    with WorkerProcess(alone) as worker:
        worker.wait_ready()
        wait_served(worker, range(20))
        wait_folded(alone, worker)
        assert_right(alone)
        worker.stop()


def test_running_workers_and_their_successors_continue_after_kafka_loses_their_identities(
    alone: dict[str, str], broker: EmbeddedKafka, tmp_path: Path
) -> None:
    """The topic `__transaction_state` is empty, so the next owners get different producer ids."""
    with WorkerProcess(alone) as first:
        first.wait_ready()
        deliver(alone, orders(range(20)))
        wait_folded(alone, first)
        broker.stop()
        states = list((broker.folder / "data").glob("__transaction_state-*"))
        assert states
        for folder in states:
            shutil.rmtree(folder)
        broker.start()
        deliver(alone, orders(range(20, 40)))
        wait_folded(alone, first)
        with WorkerProcess(second_of(alone, tmp_path / "two")) as second:
            second.wait_ready()
            deliver(alone, orders(range(40, 60)))
            wait_folded(alone, first, second)
            first.signal(signal.SIGKILL)
            wait_served(second, range(60))
            assert_right(alone)


def test_standby_tables_that_are_newer_than_their_changelogs_are_restored_from_scratch(
    alone: dict[str, str], disk: Disk, tmp_path: Path
) -> None:
    """A standby serves nothing, but when it becomes the owner, it continues from its own table."""
    one = alone | {"LEDGER_STANDBY_REPLICAS": "1"}
    two = second_of(one, tmp_path / "two")
    fold(one, range(20))
    copy = disk.keep()
    with WorkerProcess(one) as first, WorkerProcess(two) as second:
        first.wait_ready()
        second.wait_ready()
        deliver(one, orders(range(20, 60)))
        wait_folded(one, first, second)
        second.stop()
        first.stop()
    disk.bring_back(copy)
    # The other two workers wait until this worker's session ends, and then share the partitions.
    fold(second_of(one, tmp_path / "three"), range(100, 160))
    with WorkerProcess(one) as first, WorkerProcess(two) as second:
        first.wait_ready()
        second.wait_ready()
        until(lambda: first.logged("table restored from scratch"), within_s=30, what="a restore")
        second.signal(signal.SIGKILL)
        wait_served(first, [*range(20), *range(100, 160)])
        assert {first.get(f"/orders/ord_{n}")[0] for n in range(20, 60)} == {404}
        assert_right(one)


def test_a_worker_ends_if_its_source_was_shortened_and_has_grown_again(
    alone: dict[str, str], disk: Disk
) -> None:
    """If the worker continued, it would never fold new records at offsets that it has folded."""
    fold(alone, range(20))
    shorter = disk.keep()
    fold(alone, range(20, 60))
    whole = disk.keep()
    for source in map(names_of(alone).source_of, TABLES):
        disk.bring_back(whole, older=shorter, topics=[source])
        asyncio.run(grow(alone, source))
        with WorkerProcess(alone) as worker:
            reason = worker.reason_of_end(60)
        assert f"{source}[" in reason
        assert "no longer has the record that was folded at offset" in reason
        assert "`plexy-ledger rebuild`" in reason


async def grow(env: dict[str, str], topic: str) -> None:
    """Append meaningless records to each partition: more records than the topic has lost."""
    async with producer(env["LEDGER_KAFKA_BOOTSTRAP"]) as client:
        for partition in range(PARTITIONS):
            records = [OutRecord(b"key", b"value")] * 60
            await send_to_partition(client, topic, partition, records)
