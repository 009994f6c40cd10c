"""A worker never folds from a wrong place, whoever moved its commits or shortened its topics.

Commits are set by whoever may; topics become shorter when a broker's disk is restored from an older
copy, or when a replica leads that lacks records. What was folded is known by the tables alone.
"""

import asyncio
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.kafka.broker import EmbeddedKafka
from cli.kafka.distribution import KafkaCache
from ledger.topics import TableName, changelog_name
from processors.batches import OutRecord, send_to_partition
from tests.kafka.harness import (
    PARTITIONS,
    WorkerProcess,
    commit,
    deliver,
    environment,
    event,
    group_of,
    names_of,
    positions,
    producer,
    run,
    second_of,
    until,
    wait_folded,
)

pytestmark = pytest.mark.timeout(300)

# A worker whose table HELD is never written, nor what is published before it.
HOLDS_A_TABLE = """
import asyncio, os
from processors.effects import Effects
from processors.settings import WorkerSettings
from processors.worker import run
write = Effects.write
async def held(effects):
    if effects._table.name == os.environ["HELD"]:
        await asyncio.Event().wait()
    await write(effects)
Effects.write = held
run(WorkerSettings.from_environment(os.environ))
"""


def orders(numbers: Iterable[int]) -> list[dict[str, Any]]:
    """Return a payment for each of some orders."""
    return [event(n, order=f"ord_{n}") for n in numbers]


def fold(env: dict[str, str], numbers: Iterable[int]) -> None:
    """Deliver and fold with a worker that is stopped afterwards."""
    with WorkerProcess(env) as worker:
        worker.wait_ready()
        deliver(env, orders(numbers))
        wait_folded(env, worker)
        worker.stop()


def wait_served(worker: WorkerProcess, numbers: Iterable[int]) -> None:
    """Wait until a worker knows all of some orders; fail at once if it ends."""
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


@pytest.mark.parametrize("table", ["seen", "payments", "orders"])
def test_a_commit_that_was_set_ahead_of_the_table_skips_no_record(
    env: dict[str, str], table: TableName
) -> None:
    """As by `kafka-consumer-groups --reset-offsets --to-latest`."""
    fold(env, range(20))
    source = names_of(env).source_of(table)

    def waiting() -> bool:
        return sum(at.end for tp, at in positions(env).items() if tp.topic == source) == 60

    with WorkerProcess(env | {"HELD": table}, [sys.executable, "-c", HOLDS_A_TABLE]) as worker:
        worker.wait_ready()
        deliver(env, orders(range(20, 60)))
        until(waiting, within_s=60, what=f"60 records in {source}")
    for tp, at in positions(env).items():
        if tp.topic == source:
            asyncio.run(commit(env, tp, at.end))
    with WorkerProcess(env) as worker:
        worker.wait_ready()
        wait_served(worker, range(60))
        wait_folded(env, worker)
        assert_right(env)
        told = worker.logged("commit beyond what is folded")
        assert {line["topic"] for line in told} == {source}
        worker.stop()


class Disk:
    """The disk of a broker that is stopped for a copy, and for a part of it to be brought back."""

    def __init__(self, broker: EmbeddedKafka, copy: Path) -> None:
        self._broker = broker
        self._copy = copy

    @property
    def _data(self) -> Path:
        return self._broker.folder / "data"

    def keep(self) -> None:
        self._broker.stop()
        shutil.copytree(self._data, self._copy)
        self._broker.start()

    def bring_back(self, topics: Iterable[str] | None = None) -> None:
        """Replace the partitions of some topics, or everything, by what was kept."""
        self._broker.stop()
        if topics is None:
            shutil.rmtree(self._data)
            shutil.copytree(self._copy, self._data)
        for name in topics or ():
            for partition in range(PARTITIONS):
                shutil.rmtree(self._data / f"{name}-{partition}")
                shutil.copytree(
                    self._copy / f"{name}-{partition}", self._data / f"{name}-{partition}"
                )
        self._broker.start()


@pytest.fixture
def broker(kafka_cache: KafkaCache, tmp_path: Path) -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka(tmp_path / "own", cache=kafka_cache) as own:
        yield own


@pytest.fixture
def disk(broker: EmbeddedKafka, tmp_path: Path) -> Disk:
    return Disk(broker, tmp_path / "copy")


@pytest.fixture
def alone(broker: EmbeddedKafka, tmp_path: Path) -> dict[str, str]:
    """Return the settings of a ledger on the broker whose disk is brought back."""
    return environment(broker.bootstrap, tmp_path / "one", standby_replicas=0)


def test_tables_that_are_newer_than_a_restored_broker_are_restored_from_their_changelogs(
    alone: dict[str, str], disk: Disk, tmp_path: Path
) -> None:
    """The changelogs have grown beyond the tables again, so that offsets alone would not tell."""
    fold(alone, range(20))
    disk.keep()
    fold(alone, range(20, 60))
    disk.bring_back()
    fold(second_of(alone, tmp_path / "two"), range(100, 160))
    with WorkerProcess(alone) as worker:
        worker.wait_ready()
        wait_served(worker, [*range(20), *range(100, 160)])
        assert {worker.get(f"/orders/ord_{n}")[0] for n in range(20, 60)} == {404}
        assert_right(alone)
        assert len(worker.logged("table restored from scratch")) == 3 * PARTITIONS
        worker.stop()


@pytest.mark.parametrize("folder", ["one", "new"], ids=["its tables", "an empty disk"])
def test_what_a_changelog_has_lost_is_folded_again_from_the_source(
    alone: dict[str, str], disk: Disk, tmp_path: Path, folder: str
) -> None:
    """The commits have stayed, and say that all of it is folded."""
    fold(alone, range(20))
    disk.keep()
    fold(alone, range(20, 60))
    disk.bring_back(changelog_name(group_of(alone), table) for table in ("payments", "orders"))
    with WorkerProcess(second_of(alone, tmp_path / folder)) as worker:
        worker.wait_ready()
        wait_served(worker, range(60))
        wait_folded(alone, worker)
        assert_right(alone)
        worker.stop()


def test_a_changelog_that_has_lost_everything_is_made_anew_from_the_source(
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


def test_standby_tables_that_are_newer_than_their_changelogs_are_restored_from_scratch(
    alone: dict[str, str], disk: Disk, tmp_path: Path
) -> None:
    """A standby serves nothing, and folds on from what it has when its partition comes to it."""
    one = alone | {"LEDGER_STANDBY_REPLICAS": "1"}
    two = second_of(one, tmp_path / "two")
    fold(one, range(20))
    disk.keep()
    with WorkerProcess(one) as first, WorkerProcess(two) as second:
        first.wait_ready()
        second.wait_ready()
        deliver(one, orders(range(20, 60)))
        wait_folded(one, first, second)
        second.stop()
        first.stop()
    disk.bring_back()
    fold(second_of(one, tmp_path / "three"), range(100, 160))
    with WorkerProcess(one) as first, WorkerProcess(two) as second:
        first.wait_ready()
        second.wait_ready()
        until(lambda: first.logged("table restored from scratch"), within_s=30, what="a restore")
        second.signal(9)
        wait_served(first, [*range(20), *range(100, 160)])
        assert {first.get(f"/orders/ord_{n}")[0] for n in range(20, 60)} == {404}
        assert_right(one)


@pytest.mark.parametrize("table", ["seen", "payments", "orders"])
def test_a_source_that_was_shortened_and_has_grown_again_ends_the_worker(
    alone: dict[str, str], disk: Disk, table: TableName
) -> None:
    """New records stand at offsets that are folded already, and would never count."""
    fold(alone, range(20))
    disk.keep()
    fold(alone, range(20, 60))
    source = names_of(alone).source_of(table)
    disk.bring_back([source])

    # As many as were lost, and more: records that mean nothing will do.
    async def grow() -> None:
        async with producer(alone["LEDGER_KAFKA_BOOTSTRAP"]) as client:
            for partition in range(PARTITIONS):
                records = [OutRecord(b"key", b"value")] * 60
                await send_to_partition(client, source, partition, records)

    asyncio.run(grow())
    with WorkerProcess(alone) as worker:
        reason = worker.reason_of_end(60)
    assert f"{source}[" in reason
    assert "has another record at offset" in reason
    assert "`plexy-ledger rebuild`" in reason
