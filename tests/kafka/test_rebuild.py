"""`plexy-ledger rebuild` folds the log into a new version, which can replace the running version.

Each test has its own history of events. A worker has folded this history, and keeps running unless
the test ends it. The tests write altered values to Kafka directly, as anybody with access to Kafka
could.
"""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka.admin import AIOKafkaAdminClient

from cli.kafka.broker import EmbeddedKafka
from ledger.money import Money
from ledger.topics import changelog_name
from ledger.wire import PAYMENTS
from runtime.kafka.batches import OutRecord
from tests.kafka.answers import SECRET, deliver
from tests.kafka.harness import (
    WorkerProcess,
    environment,
    event,
    group_of,
    latest,
    names_of,
    positions,
    read_topic,
    until,
    wait_folded,
    write,
)
from tests.kafka.verification import deliveries, history, named, verify

# The longest test starts a worker four times, and has three rebuilds and thousands of events.
pytestmark = pytest.mark.timeout(480)


@contextmanager
def rebuilding(env: dict[str, str], *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Start a rebuild; after the ``with`` block, kill the rebuild if it still runs."""
    with subprocess.Popen(
        [sys.executable, "-m", "cli", "rebuild", *arguments],
        env=os.environ | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def rebuild(env: dict[str, str], *arguments: str) -> tuple[int, str]:
    with rebuilding(env, *arguments) as process:
        output, _ = process.communicate(timeout=200)
    assert "Traceback" not in output, output
    return process.returncode, output


def of_version(env: dict[str, str], version: int, folder: Path | None = None) -> dict[str, str]:
    there = {"LEDGER_DATA_DIR": str(folder)} if folder else {}
    return env | {"LEDGER_VERSION": str(version)} | there


def twice() -> list[dict[str, Any]]:
    """Return three success events for each payment.

    The event delivered second was created earliest. The earliest success counts, so it replaces the
    event delivered first.
    """
    return [
        event(number, id=f"pay_t{n}", merchantReference=f"ord_t{n}") | {"created": created}
        for created in (1_767_225_900, 1_767_225_700, 1_767_225_800)
        for n, number in enumerate(range(created % 1000, created % 1000 + 20))
    ]


@pytest.fixture
def ledger(kafka: EmbeddedKafka, tmp_path: Path) -> Iterator[WorkerProcess]:
    """Run a worker that has folded the history."""
    env = environment(kafka.bootstrap, tmp_path / "ledger", webhook_secrets=SECRET)
    with WorkerProcess(env) as worker:
        worker.wait_ready(90)
        deliver(env, *history(), *twice())
        wait_folded(env, worker)
        yield worker


def documents(env: dict[str, str]) -> dict[bytes, bytes]:
    """Return the documents of the orders.

    An order whose payments have all moved to other orders has no document.
    """
    return latest(env, names_of(env).orders)


def test_a_version_that_is_rebuilt_during_deliveries_equals_the_old_version_and_replaces_it(ledger):
    env, new = ledger.env, of_version(ledger.env, 2)
    with deliveries(env):
        code, output = rebuild(env)
    assert (code, named(output)) == (0, []), output
    assert output.count("No difference") == 3
    assert "set LEDGER_VERSION=2" in output
    wait_folded(env, ledger)
    ledger.stop()
    before = documents(env)
    folder = Path(env["LEDGER_DATA_DIR"])
    assert not (folder / "rebuild-v2").exists()
    assert [each.name.split("@")[0] for each in (folder / "tables").glob("*/*")].count(
        group_of(new)
    ) == 1
    with WorkerProcess(new) as worker:
        worker.wait_ready(90)
        wait_folded(new, worker)
        assert documents(new) == before
        deliver(new, event(1, id="pay_late", merchantReference="ord_2") | {"id": "evt_late"})
        wait_folded(new, worker)
        status, order = worker.get("/orders/ord_2")
        assert status == 200
        assert "pay_late" in [each["payment_id"] for each in order["payments"]]
        # From now on, no worker writes to the topics of the old version.
        assert documents(env) == before
        code, output = verify(new)
        assert (code, named(output)) == (0, []), output
        assert "0 payments in motion" in output
    # Switch back: the old version continues where it stopped.
    with WorkerProcess(env) as worker:
        worker.wait_ready(90)
        wait_folded(env, worker)
        assert worker.get("/orders/ord_2") == (200, order)


def test_a_wrong_value_of_the_old_version_is_reported_and_is_absent_from_the_new_version(ledger):
    env, new = ledger.env, of_version(ledger.env, 2)
    topic = changelog_name(group_of(env), "payments")
    payment = PAYMENTS.decode(latest(env, topic)[b"pay_4"])
    fact = msgspec.structs.replace(payment.facts["evt_4"], money=Money(1, "KZT"))
    wrong = msgspec.structs.replace(payment, facts=payment.facts | {"evt_4": fact})
    write(env, topic, [OutRecord(b"pay_4", PAYMENTS.encode(wrong))])
    code, output = rebuild(env)
    assert code == 1
    assert named(output) == ["payment_differs  payment pay_4"], output
    (line,) = [each for each in output.splitlines() if each.startswith("versions_differ  ")]
    assert line == (
        "versions_differ  payment pay_4: facts.evt_4.money.amount_minor: "
        "version 1 has 1, version 2 has 504"
    )
    assert f"    evt_4  payment.succeeded  partition {fact.partition}" in output
    assert "Version 2 is correct nevertheless" in output
    assert "set LEDGER_VERSION=2" in output
    assert latest(new, changelog_name(group_of(new), "payments"))[b"pay_4"] == PAYMENTS.encode(
        payment
    )
    with WorkerProcess(new | {"LEDGER_DATA_DIR": env["LEDGER_DATA_DIR"] + "-2"}) as worker:
        worker.wait_ready(90)
        assert worker.get("/payments/pay_4")[1]["amount"] == 504
        assert verify(new)[0] == 0
    code, output = rebuild(env)
    assert code == 1
    (line,) = output.splitlines()
    assert "version 2 exists already" in line
    assert "--to 3" in line


def test_a_rebuild_that_is_killed_continues_where_it_stopped(ledger):
    env, new = ledger.env, of_version(ledger.env, 2)
    deliver(env, *(event(10_000 + n, merchantReference=f"ord_{n % 500}") for n in range(5000)))
    wait_folded(env, ledger)
    # The chunks are small, so that the rebuild has many chunks and is killed before the last chunk.
    slow = env | {"LEDGER_CHUNK_RECORDS": "2"}
    with rebuilding(slow) as process:
        # The rebuild prints this line after it has created the topics.
        assert process.stdout
        assert process.stdout.readline().startswith("Making version 2")
        until(
            lambda: any(each.committed for each in positions(new).values()),
            within_s=120,
            what="commits of the new version",
        )
        children = children_of(process.pid)
    # The killed rebuild's worker must not outlive the rebuild.
    until(lambda: not any(is_running(each) for each in children), within_s=10, what="its end")
    assert children
    folded = len(read_topic(new, changelog_name(group_of(new), "seen")))
    assert 0 < folded < 5000
    with rebuilding(slow) as process:
        until(lambda: children_of(process.pid), within_s=60, what="a worker")
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "the same command continues from here" in output
    assert "Traceback" not in output, output
    code, output = rebuild(env)
    assert (code, named(output)) == (0, []), output
    assert output.startswith("Continuing version 2")
    # Each event was written to the table once, or twice if its chunk was interrupted.
    seen = read_topic(new, changelog_name(group_of(new), "seen"))
    assert len(seen) < 5000 + len(history()) + len(twice()) + 2000
    code, output = rebuild(env)
    assert code == 1
    assert "version 2 exists already" in output


def test_a_new_version_that_differs_from_the_log_keeps_its_folder_and_is_checked_again(
    ledger,
):
    env, new = ledger.env, of_version(ledger.env, 2)
    folder = Path(env["LEDGER_DATA_DIR"]) / "rebuild-v2"
    with rebuilding(env) as process:
        assert process.stdout
        assert process.stdout.readline().startswith("Making version 2")
    # Somebody else writes to the version that is being built.
    topic = changelog_name(group_of(new), "payments")
    value = latest(env, changelog_name(group_of(env), "payments"))[b"pay_4"]
    write(new, topic, [OutRecord(b"pay_forged", value)])
    code, output = rebuild(env)
    assert code == 1
    assert named(output) == ["payment_unexplained  payment pay_forged"], output
    assert "Version 2 differs from the log: stay with version 1." in output
    assert f"worker left its tables and its log in {folder}" in output.replace("\n", " ")
    assert (folder / "worker.log").stat().st_size > 0
    assert list((folder / "tables").glob("*/*@*"))
    # The version does not count as finished. After the repair, the version is correct.
    write(new, topic, [OutRecord(b"pay_forged", None)])
    code, output = rebuild(env)
    assert output.startswith("Continuing version 2"), output
    assert (code, named(output)) == (0, []), output
    assert not folder.exists()


def children_of(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    text = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(each) for file in text for each in file.read_text().split()]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_an_old_version_that_is_behind_or_has_lost_a_topic_does_not_stop_a_rebuild(ledger):
    env = ledger.env
    ledger.stop()
    deliver(env, event(8000, merchantReference="ord_2"))
    code, output = rebuild(env, "--wait", "0")
    assert code == 1
    assert named(output) == [], output
    assert "version 1 is behind: 1 of " in output
    # The rebuild still compares everything else in the old version.
    compared = "Version 1 was compared with the log of record (payments with unfolded records: 1)"
    assert compared in output
    assert "Version 2 is correct nevertheless" in output
    lost = changelog_name(group_of(env), "orders")
    delete_topic(env, lost)
    code, output = rebuild(env, "--to", "3", "--wait", "0")
    assert code == 1
    assert named(output) == [], output
    assert f"version 1 can't be compared: it has no {lost}" in output
    assert "set LEDGER_VERSION=3" in output
    # Rebuild once more. Now version 3 is the old version, and it is correct.
    code, output = rebuild(of_version(env, 3), "--to", "7")
    assert code == 0, output


def delete_topic(env: dict[str, str], topic: str) -> None:
    async def delete() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=env["LEDGER_KAFKA_BOOTSTRAP"])
        await admin.start()
        try:
            await admin.delete_topics([topic])
            async with asyncio.timeout(15):
                while topic in await admin.list_topics():  # noqa: ASYNC110 - no event to wait for
                    await asyncio.sleep(0.05)
        finally:
            await admin.close()

    asyncio.run(delete())


@pytest.mark.parametrize(
    ("settings", "arguments", "code", "error"),
    [
        ({}, [], 1, "there is no log of record "),
        ({"LEDGER_VERSION": "3"}, ["--to", "3"], 2, "--to 3 is not above the version"),
        ({"LEDGER_VERSION": "0"}, [], 2, "LEDGER_VERSION: Expected `int` >= 1"),
    ],
)
def test_an_impossible_rebuild_is_refused_and_nothing_is_created(  # noqa: PLR0917
    kafka, tmp_path, settings, arguments, code, error
):
    env = environment(kafka.bootstrap, tmp_path / "ledger") | settings
    got, output = rebuild(env, *arguments)
    assert (got, len(output.splitlines())) == (code, 1), output
    assert error in output
    assert not (tmp_path / "ledger").exists()
