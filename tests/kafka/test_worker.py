"""The worker as a process: killed, stopped, doubled, failing; the states are right all the same."""

import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.kafka import EmbeddedKafka
from ledger.topics import changelog_name
from ledger.wire import ENTRIES
from tests.kafka.harness import (
    WorkerProcess,
    deliver,
    environment,
    free_port,
    group_of,
    lags,
    names_of,
    read_topic,
    until,
    wait_folded,
)

EVENTS = 20_000


def history(count: int) -> Iterator[dict[str, Any]]:
    """Two events an order: a payment, and for every other one a refund that names only it."""
    for n in range(count // 2):
        yield event(f"evt_p{n}", "payment.succeeded", f"pay_{n}", 1000 + n, order=f"ord {n}/ü")
        refund = event(f"evt_r{n}", "refund.succeeded", f"re_{n}", n % 2, payment=f"pay_{n}")
        yield refund


def event(
    event_id: str, kind: str, data_id: str, amount: object, *, order: str = "", payment: str = ""
) -> dict[str, Any]:
    data = {"id": data_id, "amount": amount, "currency": "KZT", "status": "succeeded"}
    data |= {"merchantReference": order} if order else {}
    data |= {"payment_id": payment} if payment else {}
    return {"id": event_id, "type": kind, "created": 1_700_000_000, "data": data}


def assert_states_are_right(env: dict[str, str], count: int) -> None:
    """Compare the last document of every order, and the journal, with a sum of our own."""
    documents = {}
    for record in read_topic(env, names_of(env).orders):
        documents[record.key.decode()] = json.loads(record.value) if record.value else None
    # A refund that came before its payment stood under the payment's own id until then.
    documents = {order_id: document for order_id, document in documents.items() if document}
    assert len(documents) == count // 2
    for n in range(count // 2):
        document = documents[f"ord {n}/ü"]
        refunded = n % 2
        expected = {"paid": 1000 + n, "refunded": refunded, "net": 1000 + n - refunded}
        assert document["totals"] == {"KZT": expected}, document
        assert document["version"] == 2, document
        assert document["anomalies"] == [], document
    entries = {record.key: record.value for record in read_topic(env, names_of(env).entries)}
    sums: dict[str, int] = {}
    for value in entries.values():
        for posting in ENTRIES.decode(value).postings:
            sums[posting.account] = sums.get(posting.account, 0) + posting.amount
    paid = sum(1000 + n for n in range(count // 2))
    refunds = sum(n % 2 for n in range(count // 2))
    expected_sums = {
        "assets:plexy": paid - refunds,
        "income:sales": -paid,
        "income:refunds": refunds,
    }
    assert len(entries) == count
    assert sums == expected_sums


def wait_lag_below(env: dict[str, str], records: float) -> None:
    """Wait until dedupe is on its way."""
    until(lambda: lags(env)[names_of(env).webhooks] < records, within_s=60, what="folding")


@pytest.fixture
def env(kafka: EmbeddedKafka, tmp_path: Path) -> dict[str, str]:
    return environment(kafka.bootstrap, tmp_path / "one")


def second_of(env: dict[str, str], folder: Path) -> dict[str, str]:
    return env | {"LEDGER_DATA_DIR": str(folder), "LEDGER_WEB_PORT": str(free_port())}


def test_a_worker_killed_in_the_middle_and_restarted_ends_with_the_right_states(
    env: dict[str, str],
) -> None:
    with WorkerProcess(env) as worker:
        worker.wait_ready()
        deliver(env, history(EVENTS))
        for left in (EVENTS * 0.9, EVENTS * 0.5):
            wait_lag_below(env, left)
            worker.signal(signal.SIGKILL)
            worker.wait(10)
            worker.start()
        wait_folded(env, worker)
    assert_states_are_right(env, EVENTS)


def test_two_workers_share_the_partitions_and_one_takes_over_when_the_other_is_killed(
    env: dict[str, str], tmp_path: Path
) -> None:
    with WorkerProcess(env) as one, WorkerProcess(second_of(env, tmp_path / "two")) as two:
        one.wait_ready()
        two.wait_ready()
        deliver(env, history(EVENTS // 2))
        wait_folded(env, one, two)
        # Either answers for every order, whoever has it.
        one.wait_ready()
        two.wait_ready()
        for n in range(40):
            path = f"/orders/ord%20{n}%2F%C3%BC"
            first, second = one.get(path), two.get(path)
            assert first == second
            assert first[0] == 200, first
            assert first[1]["order_id"] == f"ord {n}/ü"
        deliver(env, list(history(EVENTS))[EVENTS // 2 :])
        wait_lag_below(env, EVENTS // 3)
        two.signal(signal.SIGKILL)
        two.wait(10)
        wait_folded(env, one, within_s=90)
        until(lambda: one.get("/orders/ord%200%2F%C3%BC")[0] == 200, within_s=30, what="taken over")
    assert_states_are_right(env, EVENTS)


def test_sigterm_stops_in_time_with_everything_that_was_done_committed(
    env: dict[str, str],
) -> None:
    with WorkerProcess(env) as worker:
        worker.wait_ready()
        deliver(env, history(EVENTS))
        wait_lag_below(env, EVENTS * 0.9)
        worker.signal(signal.SIGTERM)
        assert worker.wait(within_s=10) == 0, worker.tail()
        seen = {r.key for r in read_topic(env, changelog_name(group_of(env), "seen"))}
        # What dedupe remembers, it has done: all of that and no more is committed.
        assert lags(env)[names_of(env).webhooks] == EVENTS - len(seen)
        worker.start()
        wait_folded(env, worker)
    assert_states_are_right(env, EVENTS)


FAILS_ONCE = """
import os, pathlib
import processors.payments as agent
flag = pathlib.Path(os.environ["LEDGER_DATA_DIR"]) / "failed"
fold = agent.fold_payments
def fails(events, known):
    events = list(events)
    if not flag.exists() and any(event.event_id == "evt_p7" for event in events):
        flag.touch()
        raise RuntimeError("nobody expected this")
    return fold(events, known)
agent.fold_payments = fails
from processors.settings import WorkerSettings
from processors.worker import run
run(WorkerSettings.from_environment(os.environ))
"""


def test_a_worker_that_meets_an_unexpected_exception_exits_and_folds_the_chunk_after_a_restart(
    env: dict[str, str],
) -> None:
    with WorkerProcess(env, [sys.executable, "-c", FAILS_ONCE]) as worker:
        worker.wait_ready()
        deliver(env, history(200))
        assert worker.wait(within_s=30) != 0
        assert "nobody expected this" in worker.log_file.read_text()
        assert lags(env)[names_of(env).events] > 0
        worker.start()
        wait_folded(env, worker)
    assert_states_are_right(env, 200)


def test_an_event_id_that_comes_with_another_body_is_quarantined_and_the_first_stands(
    env: dict[str, str],
) -> None:
    first = event("evt_1", "payment.succeeded", "pay_1", 500, order="ord_1")
    again = {**first, "data": dict(reversed(first["data"].items()))}
    other = {**first, "data": {**first["data"], "amount": 900}}
    with WorkerProcess(env) as worker:
        worker.wait_ready()
        deliver(env, [first, again, other])
        wait_folded(env, worker)
        status, document = worker.get("/orders/ord_1")
    assert (status, document["totals"]["KZT"]["paid"], document["version"]) == (200, 500, 1)
    (rejected,) = read_topic(env, names_of(env).rejected)
    headers = dict(rejected.headers)
    assert (rejected.key, headers["reason"]) == (b"evt_1", b"event_id_reused")
    assert json.loads(rejected.value) == other
    assert headers["source-topic"].decode() == names_of(env).webhooks
    assert headers["source-offset"] == b"2"


def test_bad_data_of_a_known_type_is_rejected_with_a_reason_and_harms_nothing(
    env: dict[str, str],
) -> None:
    good = event("evt_ok", "payment.succeeded", "pay_1", 500, order="ord_1")
    bad = {
        "amount_not_integer": event("evt_a", "payment.succeeded", "pay_2", 1.5),
        "amount_missing": event("evt_b", "payment.succeeded", "pay_3", None),
        "amount_negative": event("evt_c", "refund.succeeded", "re_1", -1, payment="pay_1"),
        "currency_unknown": {**good, "id": "evt_d", "data": {**good["data"], "currency": "ZZZ"}},
        "id_missing": event("evt_e", "payment.failed", "", 5),
        "reference_too_long": event("evt_f", "payment.succeeded", "pay_4", 5, order="x" * 513),
    }
    with WorkerProcess(env) as worker:
        worker.wait_ready()
        deliver(env, [good, *bad.values()])
        deliver(env, [event("evt_other", "payout.created", "po_1", 1)])
        wait_folded(env, worker)
        assert worker.get("/orders/ord_1")[1]["version"] == 1
    rejected = read_topic(env, names_of(env).rejected)
    reasons = {dict(record.headers)["reason"].decode() for record in rejected}
    assert reasons == set(bad)
