"""`plexy-ledger audit` checks a running ledger, and keeps running when it finds a difference.

The audit is *green* while its readiness probe answers 200, and *red* while the probe answers 503.
The reason for a 503 is *drift* if the ledger's topics differ from the log of record.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from cli.kafka.broker import EmbeddedKafka
from ledger.money import Money
from ledger.topics import changelog_name
from ledger.wire import ENTRIES, PAYMENTS
from runtime.kafka.batches import OutRecord, send_to_partition
from runtime.kafka.partitions import partition_for
from tests.kafka.answers import SECRET, TOKEN, ask, assert_problem, deliver
from tests.kafka.harness import (
    PARTITIONS,
    WorkerProcess,
    commit,
    environment,
    event,
    free_port,
    group_of,
    latest,
    names_of,
    producer,
    until,
    wait_folded,
    write,
)
from tests.kafka.programs import AuditProcess, drift
from tests.kafka.verification import history, named, verify

pytestmark = pytest.mark.timeout(240)


class Audited(NamedTuple):
    """A worker that folds a history, and an audit of the worker's ledger."""

    worker: WorkerProcess
    audit: AuditProcess


@contextmanager
def audited(kafka: EmbeddedKafka, folder: Path) -> Iterator[Audited]:
    env = environment(kafka.bootstrap, folder / "worker", webhook_secrets=SECRET)
    with WorkerProcess(env) as worker:
        worker.wait_ready(90)
        deliver(env, *history())
        with AuditProcess(env, folder / "audit") as audit:
            audit.wait_ready()
            yield Audited(worker, audit)


@pytest.fixture
def own(kafka: EmbeddedKafka, tmp_path: Path) -> Iterator[Audited]:
    with audited(kafka, tmp_path) as both:
        yield both


@pytest.fixture(scope="module")
def shared(kafka: EmbeddedKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Audited]:
    """Run a worker and its audit for all tests that undo their changes."""
    with audited(kafka, tmp_path_factory.mktemp("audit")) as both:
        yield both


def test_the_audit_of_a_growing_ledger_stays_green_and_ends_after_a_sigterm(own):
    worker, audit = own
    for n in range(10):
        bodies = [event(1000 + 10 * n + i, merchantReference=f"ord_{i}") for i in range(5)]
        refund = {"id": f"re_{n}", "payment_id": "pay_1", "amount": 1}
        deliver(worker.env, *bodies, event(2000 + n, "refund.succeeded", **refund))
        # This payment moves to a different order with every delivery.
        moved = event(3000 + n, id="pay_9", merchantReference=f"ord_{n}")
        deliver(worker.env, moved | {"created": 1_700_001_000 - n})
        assert audit.get("/readyz") == (200, {"status": "ready"}), audit.tail()
        audit.wait_rounds(1)
    wait_folded(worker.env, worker)
    metrics = audit.wait_rounds()
    assert drift(metrics) == {}
    assert metrics["log_records"] == len(history()) + 70
    assert metrics["lag_records"] == 0
    assert audit.get("/healthz")[0] == 200
    assert "difference" not in audit.tail()
    audit.stop(10)


def test_the_audit_of_a_growing_large_order_stays_green_until_the_order_loses_a_row(own):
    """The order has many rows in the changelog, and each round of the audit reads only new rows."""
    worker, audit = own
    deliver(worker.env, *(event(1000 + n, merchantReference="ord_big") for n in range(1500)))
    for n in range(5):
        moved = event(9000 + n, id=f"pay_{1000 + n}", merchantReference="ord_2")
        moved["created"] = 1_700_000_000 + n
        deliver(worker.env, event(5000 + n, merchantReference="ord_big"), moved)
        audit.wait_rounds(1)
    wait_folded(worker.env, worker)
    assert worker.get("/orders/ord_big")[1]["summary"]["payments"] == 1500
    assert drift(audit.wait_rounds()) == {}
    changelog = changelog_name(group_of(worker.env), "orders")
    partition = partition_for(b"ord_big", PARTITIONS)
    lost = OutRecord(b"ord_big\xffppay_1234", None)

    async def lose() -> None:
        async with producer(worker.env["LEDGER_KAFKA_BOOTSTRAP"]) as client:
            await send_to_partition(client, changelog, partition, [lost])

    asyncio.run(lose())
    problem = audit.wait_for("drift")
    assert "order ord_big: payment pay_1234: it is not in the order" in problem["detail"]


def test_an_audit_without_a_token_answers_only_requests_to_loopback_names(shared):
    audit = shared.audit
    for path in ("/metrics", "/readyz", "/healthz", "/metrics/"):
        for host in ("rebound.example", "10.0.0.1:6080"):
            answer = ask(audit.env, path, token=None, headers={"Host": host})
            assert_problem(answer, 421, "host_not_allowed")
        answer = ask(audit.env, path, token=None, headers={"Host": "a:b:c"})
        assert_problem(answer, 400, "invalid_host")
    for host in ("localhost", "127.0.0.1:1", "[::1]"):
        assert ask(audit.env, "/metrics", token=None, headers={"Host": host}).status == 200


def test_a_client_without_the_token_learns_that_the_audit_is_not_ready_but_not_why(
    shared, tmp_path
):
    """The audit hides the reason: the topics of this version of the ledger do not exist."""
    env = shared.worker.env | {"LEDGER_API_TOKEN": TOKEN, "LEDGER_VERSION": "2"}
    with AuditProcess(env, tmp_path / "audit") as audit:
        until(lambda: audit.get("/healthz")[0] == 200, within_s=30, what="the audit")
        hidden = audit.wait_for("cannot_audit")
        visible = ask(audit.env, "/readyz").json
        assert visible["code"] == hidden["code"]
        assert names_of(env).orders in visible["detail"]
        assert "LEDGER_API_TOKEN" in hidden["detail"]
        assert_problem(ask(audit.env, "/metrics", token=None), 401, "unauthorized")
        assert ask(audit.env, "/metrics", headers={"Host": "audit.example"}).status == 200


def test_the_audits_answer_and_log_do_not_quote_a_request_that_cannot_be_parsed(shared):
    audit = shared.audit
    with socket.create_connection(("127.0.0.1", int(audit.env["LEDGER_AUDIT_PORT"])), 10) as client:
        client.sendall(b"Authorization: Bearer " + TOKEN.encode() + b"\r\n\r\n")
        with client.makefile("rb") as answer:
            assert TOKEN not in answer.read().decode()
    assert TOKEN not in audit.tail()


def test_an_audit_without_a_token_refuses_to_listen_for_other_machines(tmp_path):
    env = environment("127.0.0.1:9", tmp_path, webhook_secrets=SECRET, audit_host="0.0.0.0")  # noqa: S104
    command = [sys.executable, "-m", "cli", "audit"]
    ended = subprocess.run(
        command, env=os.environ | env, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 2
    assert "LEDGER_AUDIT_HOST=0.0.0.0" in ended.stderr
    assert "LEDGER_API_TOKEN" in ended.stderr


def test_a_corrupted_table_turns_the_audit_red_and_a_repair_turns_it_green(shared):
    worker, audit = shared
    topic = changelog_name(group_of(worker.env), "payments")
    right = latest(worker.env, topic)[b"pay_4"]
    payment = PAYMENTS.decode(right)
    fact = msgspec.structs.replace(payment.facts["evt_4"], money=Money(1, "KZT"))
    wrong = msgspec.structs.replace(payment, facts=payment.facts | {"evt_4": fact})
    write(worker.env, topic, [OutRecord(b"pay_4", PAYMENTS.encode(wrong))])
    problem = audit.wait_for("drift")
    assert "payment_differs  payment pay_4: event evt_4" in problem["detail"]
    # The audit stays red, but it keeps running.
    assert drift(audit.wait_rounds()) == {'differences{kind="payment_differs"}': 1}
    assert audit.get("/readyz")[0] == 503
    write(worker.env, topic, [OutRecord(b"pay_4", right)])
    until(lambda: audit.get("/readyz")[0] == 200, within_s=30, what="readiness")
    assert drift(audit.metrics()) == {}


def test_lost_keys_and_a_forged_entry_and_a_forged_delivery_turn_the_audit_red(own):
    worker, audit = own
    env, names = worker.env, names_of(worker.env)
    entry = ENTRIES.decode(latest(env, names.entries)[b"payment/pay_4/evt_4"])
    forged = msgspec.structs.replace(entry, entry_id="payment/pay_4/evt_x", event_id="evt_x")
    write(env, changelog_name(group_of(env), "orders"), [OutRecord(b"ord_1", None)])
    write(env, names.orders, [OutRecord(b"ord_2", None)])
    write(env, names.entries, [OutRecord(forged.entry_id.encode(), ENTRIES.encode(forged))])
    deliver(env, event(900), secret="whsec_test_key_guessed")
    wait_folded(env, worker)
    audit.wait_for("drift")
    assert drift(audit.wait_rounds()) == {
        'differences{kind="order_missing"}': 1,
        'differences{kind="document_missing"}': 1,
        'differences{kind="entry_unexplained"}': 1,
        'differences{kind="signature_invalid"}': 1,
    }


def test_audit_and_verify_report_an_event_that_was_committed_but_never_folded(own):
    worker, audit = own
    env = worker.env
    wait_folded(env, worker)
    audit.wait_rounds()
    worker.signal(signal.SIGTERM)
    worker.wait(20)
    deliver(env, event(300, "refund.succeeded", id="re_x", payment_id="pay_4", amount=1))
    asyncio.run(commit_everything(env))
    audit.wait_for("drift")
    # The table `seen` lacks the event's row. The table's row that holds the progress of `dedupe`
    # also differs from the expected row.
    kinds = ("seen_missing", "seen_differs", "payment_differs", "order_differs", "document_differs")
    wanted = {*kinds, "entry_missing"}
    assert drift(audit.wait_rounds()) == {f'differences{{kind="{kind}"}}': 1 for kind in wanted}
    code, output = verify(env)
    assert code == 1
    assert {line.split()[0] for line in named(output)} == wanted | {"balance_differs"}
    assert output.count("it lacks event evt_300") == 3


async def commit_everything(env: dict[str, str]) -> None:
    """Commit the end of each log partition, although the workers have not folded that far."""
    partitions = [TopicPartition(names_of(env).webhooks, p) for p in range(PARTITIONS)]
    async with AIOKafkaConsumer(bootstrap_servers=env["LEDGER_KAFKA_BOOTSTRAP"]) as consumer:
        ends = await consumer.end_offsets(partitions)
    for partition in partitions:
        await commit(env, partition, ends[partition])


def test_the_audit_reports_lagging_workers_as_a_lag_and_not_as_drift(shared):
    worker, audit = shared
    worker.signal(signal.SIGTERM)
    worker.wait(20)
    deliver(worker.env, event(300))
    problem = audit.wait_for("workers_behind")
    assert "1 of 28 records" in problem["detail"]
    # The audit may have measured the lag for its metrics before the delivery arrived.
    until(lambda: audit.metrics()["lag_records"] == 1, within_s=30, what="the lag in the metrics")
    worker.start()
    until(lambda: audit.get("/readyz")[0] == 200, within_s=60, what="readiness")
    assert drift(audit.wait_rounds()) == {}


def test_while_kafka_is_down_the_audit_keeps_running_and_reports_the_fault(tmp_path):
    env = environment(f"127.0.0.1:{free_port()}", tmp_path, webhook_secrets=SECRET)
    with AuditProcess(env, tmp_path) as audit:
        until(lambda: audit.get("/readyz")[0] == 503, within_s=30, what="an answer")
        problem = audit.wait_for("kafka_unavailable")
        assert "Kafka does not answer" in problem["detail"]
        audit.stop(15)


def test_a_port_in_use_is_reported_in_one_line(tmp_path, kafka):
    with AuditProcess(
        environment(kafka.bootstrap, tmp_path, webhook_secrets=SECRET), tmp_path
    ) as a:
        until(lambda: a.get("/healthz")[0] == 200, within_s=30, what="an answer")
        other = AuditProcess(a.env, tmp_path / "other")
        other.env["LEDGER_AUDIT_PORT"] = a.env["LEDGER_AUDIT_PORT"]
        with other:
            assert other.wait(30) == 1
        assert "LEDGER_AUDIT_PORT" in other.tail()
        assert os.linesep.join(other.tail().splitlines()[1:]) == ""
