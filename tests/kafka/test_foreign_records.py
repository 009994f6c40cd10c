"""Readers of published topics skip or report the records that the ledger did not write.

`verify` and `export` never skip such a record, because a sum could then be wrong. They fail, and
name the record.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.kafka.broker import EmbeddedKafka
from ledger.topics import changelog_name
from runtime.kafka.batches import OutRecord
from runtime.kafka.partitions import partition_for
from tests.kafka.harness import (
    PARTITIONS,
    WorkerProcess,
    deliver,
    environment,
    event,
    group_of,
    moved,
    names_of,
    produce_batch,
    run,
    until,
    wait_folded,
    worker_that_folded,
    write,
)
from tests.record_batches import MIB, bomb

ROOT = Path(__file__).parents[2]
ALL = [f"ord_{n}" for n in range(8)]
JUNK = [b"\xff\xfe", b"{", b"[]", b"\x00" * 100]

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def ledger(kafka: EmbeddedKafka, tmp_path: Path) -> Iterator[WorkerProcess]:
    """Run a worker that has folded some orders, each with one payment."""
    env = environment(kafka.bootstrap, tmp_path / "ledger", allow_unsigned="true")
    with worker_that_folded(
        env, [event(n, merchantReference=order) for n, order in enumerate(ALL)]
    ) as worker:
        yield worker


def junk(key: bytes, *headers: tuple[str, bytes]) -> list[OutRecord]:
    return [OutRecord(key, value, headers) for value in JUNK]


def test_foreign_records_break_no_list_of_orders_or_rejections(ledger):
    env, names = ledger.env, names_of(ledger.env)
    write(env, names.orders, [*junk(b"ord_1"), *junk(b"\xff")])
    odd = [("reason", b"\xff"), ("source-offset", b"x"), ("put-back-at-ms", b"soon")]
    write(env, names.rejected, [*junk(b"\xff", *odd), OutRecord(b"k", None)])
    status, page = ledger.get("/orders")
    assert status == 200
    assert sorted(each["order_id"] for each in page["orders"]) == ALL
    status, page = ledger.get("/rejected")
    assert (status, len(page["items"])) == (200, len(JUNK) + 1)
    code, output = run(env, "rejected", "list")
    assert code == 0, output
    assert f"{len(JUNK) + 1} open" in output


def test_verify_reports_foreign_records_and_export_reports_the_first_of_them(ledger):
    env, names = ledger.env, names_of(ledger.env)
    write(env, names.orders, junk(b"ord_1"))
    write(env, names.entries, junk(b"stranger"))
    code, output = run(env, "verify")
    assert code == 1
    assert "document_differs  order ord_1: it can't be read" in output
    assert "entry_differs  entry stranger: it can't be read" in output
    code, output = run(env, "export", "--format", "csv")
    assert code == 1
    assert f"{names.entries}, partition " in output
    assert "the value under the key 'stranger' is not an entry" in output
    assert "`plexy-ledger verify` lists every difference" in output


def test_the_example_consumer_reports_foreign_records_and_continues(ledger, tmp_path):
    env, names = ledger.env, names_of(ledger.env)
    write(env, names.orders, junk(b"ord_1"))
    write(env, names.entries, junk(b"stranger"))
    deliver(env, [event(n, merchantReference=f"ord_{n}") for n in range(100, 110)])
    wait_folded(env, ledger)
    said = tmp_path / "said"
    command = [
        *(sys.executable, str(ROOT / "examples" / "consumer.py")),
        *(
            "--bootstrap",
            env["LEDGER_KAFKA_BOOTSTRAP"],
            "--group",
            f"{env['LEDGER_TOPIC_PREFIX']}c",
        ),
        *("--orders", names.orders, "--entries", names.entries),
        *("--database", str(tmp_path / "orders.sqlite")),
    ]
    with said.open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as consumer:
        try:
            expected = 2 * len(JUNK)
            until(
                lambda: said.read_text().count("which the ledger did not write") == expected,
                within_s=60,
                what=f"{expected} records skipped: {said.read_text()}",
            )
        finally:
            consumer.terminate()
    # The signal to stop may arrive while the consumer commits the last records.
    assert "Traceback" not in said.read_text()
    assert consumer.returncode == 0


def test_a_worker_ends_when_it_reads_a_foreign_row_and_names_its_place_and_the_remedy(
    ledger, tmp_path
):
    env = ledger.env
    ledger.stop(30)
    changelog = changelog_name(group_of(env), "payments")
    write(env, changelog, [OutRecord(b"pay_1", b"\xff")])
    refund = event(50, "refund.succeeded", payment_id="pay_1")
    deliver(env, [refund])
    with WorkerProcess(moved(env, tmp_path / "other")) as worker:
        reason = worker.reason_of_end(within_s=90)
    place = partition_for(b"pay_1", PARTITIONS)
    assert f"in partition {place} of the table payments can't be decoded" in reason
    assert f"something else has written to {changelog}" in reason
    assert "`plexy-ledger rebuild`" in reason
    _, output = run(env, "rebuild", "--wait", "1")
    assert "To switch to version 2" in output


def test_a_worker_ends_when_a_changelog_batch_is_too_large_to_unpack_and_the_error_names_it(
    ledger, tmp_path
):
    env = ledger.env
    ledger.stop(30)
    changelog = changelog_name(group_of(env), "orders")
    produce_batch(env, changelog, 2, bomb(300 * MIB, timestamp_ms=time.time_ns() // 1_000_000))
    with WorkerProcess(moved(env, tmp_path / "other")) as worker:
        reason = worker.reason_of_end(within_s=90)
    assert f"{changelog}[2] can't be applied at offset " in reason
    assert "unpacks to more than" in reason
    assert "`plexy-ledger rebuild`" in reason


def test_a_worker_ends_when_it_reads_a_damaged_batch_and_names_the_place_of_the_batch(
    ledger, kafka, tmp_path
):
    env = ledger.env
    topic, partition = names_of(env).webhooks, partition_for(b"evt_4", PARTITIONS)
    ledger.stop(30)
    kafka.stop()
    try:
        (segment,) = (kafka.folder / "data" / f"{topic}-{partition}").glob("*.log")
        segment.write_bytes(segment.read_bytes().replace(b'"amount": 504', b'"amount": 904'))
    finally:
        kafka.start()
    # A worker of a new version folds the log from scratch.
    other = {"LEDGER_VERSION": "2", "LEDGER_DATA_DIR": str(tmp_path / "other")}
    with WorkerProcess(env | other) as worker:
        reason = worker.reason_of_end(within_s=120)
    assert reason.startswith("CorruptRecordException")
    assert f"{topic}[{partition}] is damaged at offset " in reason
    code, output = run(env, "verify")
    assert code == 1
    assert f"{topic}[{partition}] is damaged at offset " in output
