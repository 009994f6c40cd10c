"""A worker whose disk is full ends with a clear message, and continues when there is space again.

A worker that is blocked also ends. If it did not end, it would keep its partitions (see
`processors/worker.py`).
"""

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.kafka.broker import EmbeddedKafka
from faults.disk import SmallDisk, can_mount, small_disk
from ledger.payments import fold_payments
from ledger.wire import ENTRIES
from ledger.wire import EVENTS as EVENTS_WIRE
from tests.kafka.answers import SECRET, deliver
from tests.kafka.harness import (
    WORKER,
    WorkerProcess,
    committed_records,
    environment,
    lags,
    names_of,
    read_topic,
    wait_folded,
)
from tests.kafka.known_states import EVENTS, assert_states_are_right, history
from tests.kafka.verification import verify

pytestmark = pytest.mark.timeout(240)

needs_mount = pytest.mark.skipif(not can_mount(), reason="mounting a small disk requires root")
# The disk has only a little more space than a worker with the smallest tables needs.
DISK_MB = 96
TABLES_MB = 24


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", DISK_MB) as mounted:
        yield mounted


@pytest.fixture
def env(kafka: EmbeddedKafka, disk: SmallDisk) -> dict[str, str]:
    return environment(
        kafka.bootstrap, disk.folder, table_memory_mb=TABLES_MB, webhook_secrets=SECRET
    )


def worker_of(env: dict[str, str], tmp_path: Path) -> WorkerProcess:
    """Return a worker whose log is not on the disk of its tables."""
    worker = WorkerProcess(env)
    worker.log_file = tmp_path / "worker.log"
    return worker


def assert_committed_records_have_their_outputs(env: dict[str, str]) -> None:
    """Check, for each topic that workers fold, that all committed records have their outputs."""
    names = names_of(env)
    received = {record.key for record in committed_records(env, names.webhooks)}
    events = [EVENTS_WIRE.decode(record.value) for record in read_topic(env, names.events)]
    assert received <= {event.event_id.encode() for event in events}

    committed = [EVENTS_WIRE.decode(r.value) for r in committed_records(env, names.events)]
    entries = {ENTRIES.decode(record.value).entry_id for record in read_topic(env, names.entries)}
    assert {entry.entry_id for entry in fold_payments(committed, {}).entries} <= entries

    snapshots = committed_records(env, names.payments)
    assert {r.key for r in snapshots} <= {r.key for r in read_topic(env, names.orders)}


@needs_mount
def test_a_worker_ends_when_its_disk_becomes_full_and_continues_after_a_restart_with_free_space(
    env: dict[str, str], disk: SmallDisk, tmp_path: Path
) -> None:
    events = list(history(EVENTS))
    with worker_of(env, tmp_path) as worker:
        worker.wait_ready()
        deliver(env, *events[:1000])
        wait_folded(env, worker)
        disk.fill()
        deliver(env, *events[1000:])
        # A table on a full disk can't be closed. A worker that tried to close the table would reach
        # its time limit.
        reason = worker.reason_of_end(within_s=60)
        assert f"LEDGER_DATA_DIR={disk.folder} can't be used: IO error: No space" in reason
        assert "make room there, and start the worker again" in reason
        assert "Timeout" not in worker.log_file.read_text()
        assert any(lags(env).values())
        assert_committed_records_have_their_outputs(env)
        disk.make_room()
        worker.start()
        wait_folded(env, worker)
        assert_states_are_right(env, EVENTS)
        assert verify(env)[0] == 0


@needs_mount
def test_a_worker_on_a_full_disk_does_not_start_and_gives_the_reason_in_one_line(
    env: dict[str, str], disk: SmallDisk, tmp_path: Path
) -> None:
    disk.fill()
    with worker_of(env, tmp_path) as worker:
        assert worker.wait(within_s=60) == 1
        (line,) = worker.log_file.read_text().splitlines()
        assert line.startswith(f"plexy-ledger: LEDGER_DATA_DIR={disk.folder} has 0.0 MiB free")
        assert line.endswith("start the worker again: it continues where it stopped")
        disk.make_room()
        worker.start()
        worker.wait_ready()


@needs_mount
def test_a_worker_on_a_disk_with_too_few_inodes_does_not_start_and_gives_the_reason(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", DISK_MB, "nr_inodes=100") as disk:
        env = environment(kafka.bootstrap, disk.folder, table_memory_mb=TABLES_MB)
        with worker_of(env, tmp_path) as worker:
            assert worker.wait(within_s=60) == 1
            (line,) = worker.log_file.read_text().splitlines()
    assert line.startswith(f"plexy-ledger: LEDGER_DATA_DIR={disk.folder} can take ")
    assert line.endswith("delete files there, or use a file system with more inodes")


@needs_mount
def test_a_worker_that_starts_without_a_free_inode_asks_the_operator_to_delete_files(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    """The system reports that no space is left, although there is free space."""
    with small_disk(tmp_path / "disk", DISK_MB, "nr_inodes=1000") as disk:
        env = environment(kafka.bootstrap, disk.folder, table_memory_mb=TABLES_MB)
        disk.use_up_inodes()
        with worker_of(env, tmp_path) as worker:
            assert worker.wait(within_s=60) != 0
            (line,) = worker.log_file.read_text().splitlines()
    assert line.startswith(f"plexy-ledger: LEDGER_DATA_DIR={disk.folder} can't be written: ")
    assert "there is no inode left for a new file: delete files there" in line


def with_limit(soft: int, hard: int) -> list[str]:
    return ["sh", "-c", f"ulimit -Sn {soft} && ulimit -Hn {hard} && exec {shlex.join(WORKER)}"]


def test_a_worker_that_may_open_too_few_files_for_its_partitions_says_how_many_it_needs(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    env = environment(kafka.bootstrap, tmp_path, partitions=8)
    with WorkerProcess(env, with_limit(500, 600)) as worker:
        assert worker.wait(within_s=90) == 1
        (line,) = worker.log_file.read_text().splitlines()
    assert line.startswith("plexy-ledger: this process may open 600 files, and 24 databases")
    assert "take 880: raise the limit on open files (`ulimit -n`" in line


def test_a_worker_may_open_more_files_than_its_soft_limit_up_to_its_hard_limit(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    env = environment(kafka.bootstrap, tmp_path, webhook_secrets=SECRET)
    with WorkerProcess(env, with_limit(90, 1024)) as worker:
        worker.wait_ready()
        deliver(env, *history(EVENTS))
        wait_folded(env, worker)
        worker.stop()


BLOCKED = """
import os, time
import processors.payments as agent
import processors.worker as program
program._STANDS_STILL_FOR_S = 2.0
agent.fold_payments = lambda events, known: time.sleep(1000)
from processors.settings import WorkerSettings
program.run(WorkerSettings.from_environment(os.environ))
"""


def test_a_blocked_worker_ends_and_shows_where_it_was_blocked(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    """A blocked worker keeps its partitions, because its heartbeats have their own thread.

    So the worker must end by itself.
    """
    env = environment(kafka.bootstrap, tmp_path)
    with WorkerProcess(env, [sys.executable, "-c", BLOCKED]) as worker:
        worker.wait_ready()
        deliver(env, *history(2))
        assert worker.wait(within_s=30) == 1
        assert "Timeout (0:00:02)!" in worker.log_file.read_text()
