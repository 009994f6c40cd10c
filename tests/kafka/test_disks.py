"""`audit` and `verify` compare the disks of two workers with the changelogs, on a real broker.

The tests damage the folder of a stopped worker, as a failing disk or a bug would.
"""

import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rocksdict import DbClosedError, Options, Rdict

from cli.kafka.broker import EmbeddedKafka
from faults.tables import rows_of
from ledger.topics import TABLES
from processors.engine.tables import DIGEST_KEY
from tests.kafka.answers import SECRET, deliver
from tests.kafka.harness import (
    PARTITIONS,
    WorkerProcess,
    environment,
    event,
    two_workers,
    until,
    wait_folded,
)
from tests.kafka.programs import AuditProcess, drift
from tests.kafka.verification import deliveries, history, named, verify

pytestmark = pytest.mark.timeout(300)

FOUND_WITHIN_S = 60
# Each of the two workers has every partition, as the active worker or as a standby.
REPLICAS = 2 * PARTITIONS * len(TABLES)
TABLE = "payments"


@pytest.fixture
def workers(kafka: EmbeddedKafka, tmp_path: Path) -> Iterator[tuple[WorkerProcess, WorkerProcess]]:
    """Run two workers that have folded a history of events."""
    env = environment(kafka.bootstrap, tmp_path / "one", webhook_secrets=SECRET, audit_wait_s=60)
    with two_workers(env, tmp_path / "two") as (one, two):
        deliver(env, *history(), *(event(n) for n in range(1000, 1100)))
        wait_folded(env, one, two)
        yield one, two


@pytest.fixture
def audit(workers: tuple[WorkerProcess, WorkerProcess], tmp_path: Path) -> Iterator[AuditProcess]:
    """Run an audit, and wait until it has compared both workers' disks."""
    with AuditProcess(workers[0].env, tmp_path / "audit") as process:
        process.wait_ready()
        wait_compared(process)
        yield process


def wait_compared(audit: AuditProcess) -> None:
    """Wait until a round of the audit has compared all tables, including those of standbys."""
    until(
        lambda: audit.metrics()["replicas_compared"] == REPLICAS,
        within_s=60,
        what=lambda: f"all disks to be compared, {audit.metrics()}",
    )


def url_of(worker: WorkerProcess) -> str:
    return f"http://127.0.0.1:{worker.env['LEDGER_WEB_PORT']}"


def replicas_of(worker: WorkerProcess) -> list[dict[str, Any]]:
    status, tables = worker.get("/tables?scope=worker")
    assert status == 200
    replicas: list[dict[str, Any]] = tables["replicas"]
    return replicas


def choose(worker: WorkerProcess, *, active: bool) -> int:
    """Return a partition that has rows.

    If ``active`` is true, the worker folds this partition. Otherwise, the worker is its standby.
    """
    return next(
        int(each["partition"])
        for each in replicas_of(worker)
        if each["table"] == TABLE and each["rows"] and each["is_active"] is active
    )


class Damaged:
    """The database of one partition in the folder of a stopped worker."""

    def __init__(self, worker: WorkerProcess, partition: int) -> None:
        tables = Path(worker.env["LEDGER_DATA_DIR"]) / "tables"
        (self.folder,) = tables.rglob(f"{TABLE}-{partition}.db")
        self.db = Rdict(str(self.folder), Options(raw_mode=True))
        self.key, self.value = next(iter(rows_of(self.db).items()))

    def skip_a_record(self) -> None:
        """Change the table as if the worker had skipped the record that created a payment.

        A standby that has applied records has no digest until its whole disk is read. So this
        method also deletes the stored digest.
        """
        self.db.delete(self.key)
        self.db.delete(DIGEST_KEY)

    def lose_a_write(self) -> None:
        self.db.delete(self.key)

    def flip_a_value(self) -> None:
        self.db.put(self.key, bytes([self.value[0] ^ 1]) + self.value[1:])

    def flip_a_bit_of_a_file(self) -> None:
        """Flip a bit in the first block of the file that contains all rows."""
        self.db.compact_range(None, None)
        self.db.close()
        (file,) = self.folder.glob("*.sst")
        content = bytearray(file.read_bytes())
        content[20] ^= 1
        file.write_bytes(content)


def damage(worker: WorkerProcess, partition: int, how: Callable[[Damaged], None]) -> None:
    """Stop a worker, damage a partition in its folder, and start the worker again.

    The worker returns as the same member of its group, so that no partition moves.
    """
    worker.stop(20)
    damaged = Damaged(worker, partition)
    how(damaged)
    with contextlib.suppress(DbClosedError):
        damaged.db.close()
    worker.start()


def wait_named(
    audit: AuditProcess, kind: str, worker: WorkerProcess, partition: int
) -> dict[str, Any]:
    """Wait until an audit reports a partition's damage; if the worker ends, start it again."""
    subject = f"partition {partition} of the table {TABLE} on {url_of(worker)}"

    def logged() -> dict[str, Any] | None:
        assert worker.process
        if worker.process.poll() is not None:
            worker.start()
        told = audit.logged("difference")
        assert [each for each in told if each["subject"] != subject] == []
        return next((each for each in told if each["kind"] == kind), None)

    found: dict[str, Any] = until(
        logged, within_s=FOUND_WITHIN_S, what=lambda: f"{kind}\n{audit.tail()}\n{worker.tail()}"
    )
    return found


def test_every_round_of_the_audit_compares_healthy_disks_and_reports_no_difference(workers, audit):
    env = workers[0].env
    with deliveries(env, pause_s=0.5):
        began = audit.metrics()["rounds"]
        while (metrics := audit.wait_rounds(1, 60))["rounds"] < began + 10:
            assert drift(metrics) == {}, audit.tail()
            assert metrics["replicas_compared"] == REPLICAS
        code, output = verify(env)
    assert (code, named(output)) == (0, []), output
    compared = f"{REPLICAS} partitions on 2 workers compared with the changelogs"
    assert f"disks          {compared}" in output.splitlines()
    wait_folded(env, *workers)
    wait_compared(audit)
    assert audit.logged("difference") == []
    assert audit.logged("disks_not_compared") == []


def test_a_record_that_a_standby_skipped_is_reported_and_the_remedy_repairs_the_table(
    workers, audit
):
    _, worker = workers
    partition = choose(worker, active=False)
    damage(worker, partition, Damaged.skip_a_record)
    found = wait_named(audit, "replica_differs", worker, partition)
    assert f"delete the folder {TABLE}-{partition}.db" in found["detail"]
    assert audit.wait_for("drift")["detail"].startswith("1 difference, the first: replica_differs")
    code, output = verify(audit.env, "--worker", url_of(worker))
    assert code == 1
    subject = f"partition {partition} of the table {TABLE} on {url_of(worker)}"
    assert named(output) == [f"replica_differs  {subject}"], output
    # The payment's order is right in the log, the changelogs and the documents.
    assert verify(audit.env, "--worker", url_of(worker), "--order", "ord_1")[0] == 0
    damage(worker, partition, lambda damaged: [each.unlink() for each in files_of(damaged)])
    until(lambda: audit.get("/readyz")[0] == 200, within_s=60, what=f"ready\n{audit.tail()}")
    wait_compared(audit)


def files_of(damaged: Damaged) -> list[Path]:
    damaged.db.close()
    return list(damaged.folder.iterdir())


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (Damaged.lose_a_write, "were written below changelog offset"),
        (Damaged.flip_a_value, "were written below changelog offset"),
        (Damaged.flip_a_bit_of_a_file, "RocksDB can't read it: Corruption"),
    ],
)
def test_a_damaged_active_table_is_reported_and_ends_its_worker_and_a_restart_restores_the_rows(
    workers, audit, how, said
):
    worker, _ = workers
    partition = choose(worker, active=True)
    damage(worker, partition, how)
    found = wait_named(audit, "replica_damaged", worker, partition)
    assert said in found["detail"]
    # If the worker uses a damaged value before it has read the whole disk, it first ends with a
    # different error. So only the worker's last end is checked.
    last = worker.logged("the worker ends")[-1]
    assert last["reason"].startswith(
        f"DamagedTableError: partition {partition} of the table {TABLE} is damaged: "
    )
    assert last["reason"].endswith("the next start restores it from the changelog; check the disk")
    worker.wait_ready()
    wait_folded(worker.env, *workers)
    wait_compared(audit)
    assert set(drift(audit.metrics())) == {'differences{kind="replica_damaged"}'}
    # The restored rows equal the rows of the changelog.
    code, output = verify(worker.env)
    assert (code, named(output)) == (0, []), output


def test_disks_that_no_worker_reports_are_listed_as_not_compared(workers, audit):
    one, two = workers
    for worker in workers:
        worker.signal(signal.SIGTERM)
        worker.wait(20)
    until(lambda: audit.metrics()["replicas_compared"] == 0, within_s=60, what="no worker")
    audit.wait_rounds(3)
    assert audit.get("/readyz")[0] == 200, audit.tail()
    # The audit may have logged its first warning while the second worker was still running.
    *_, warning = audit.logged("disks_not_compared")
    assert warning["detail"] == f"no worker answers at {url_of(one)} (ConnectError)"
    code, output = verify(one.env, "--worker", url_of(one), "--worker", url_of(two))
    assert (code, named(output)) == (0, [])
    reasons = "; ".join(f"no worker answers at {url_of(w)} (ConnectError)" for w in workers)
    assert f"disks          not compared: {reasons}" in output.splitlines()
