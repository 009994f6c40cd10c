"""The states stay right after a kill, a stop or a failure of a worker, and with a second worker."""

import json
import shutil
import signal
import sys
import uuid
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from faust.stores.rocksdb import Store

from cli.kafka.broker import EmbeddedKafka
from faults.tables import opened, rows_of
from ledger.deduplication import PROGRESS_KEY, deduplicate
from ledger.events import Event, Reading
from ledger.orders import fold_orders
from ledger.payments import fold_payments
from ledger.topics import TABLES, TableName, changelog_name
from ledger.wire import ENTRIES, ORDERS, PAYMENTS, SEEN, SNAPSHOTS
from ledger.wire import EVENTS as EVENTS_WIRE
from runtime.kafka.partitions import partition_for
from tests.kafka.harness import (
    PARTITIONS,
    WorkerProcess,
    committed_records,
    deliver,
    environment,
    free_port,
    group_of,
    lags,
    latest,
    names_of,
    positions,
    read_topic,
    second_of,
    until,
    wait_folded,
)
from tests.kafka.known_states import EVENTS, assert_states_are_right, event, history

pytestmark = pytest.mark.timeout(240)


def freeze_in_the_middle(
    env: dict[str, str],
    worker: WorkerProcess,
    bodies: list[dict[str, Any]],
    *,
    least_done: int,
    partitions: Iterable[int] = range(PARTITIONS),
) -> int:
    """Freeze a worker after ``least_done`` records, while each topic still has unfolded records.

    Before the freeze, this function delivers the bodies in small parts, so that a fast worker can't
    fold all of them. After the freeze, it delivers the remaining bodies. Return the number of
    committed records of the log.
    """
    webhooks = names_of(env).webhooks
    rest = iter(bodies)

    def done() -> int:
        return sum(p.committed for tp, p in positions(env).items() if tp.topic == webhooks)

    def is_in_the_middle() -> bool:
        deliver(env, islice(rest, 500))
        worker.freeze()
        if done() >= least_done and all(lags(env, partitions).values()):
            return True
        worker.go_on()
        return False

    until(is_in_the_middle, within_s=90, what=f"over {least_done} done, and work left")
    deliver(env, rest)
    return done()


@pytest.fixture
def env(kafka: EmbeddedKafka, tmp_path: Path) -> dict[str, str]:
    # With many small chunks, there are many moments at which a chunk is only partly done.
    return environment(kafka.bootstrap, tmp_path / "one", chunk_records=100)


def test_the_states_are_right_after_a_worker_was_killed_during_its_work_and_restarted(
    env: dict[str, str],
) -> None:
    with WorkerProcess(env) as worker:
        worker.wait_ready()
        bodies, done = list(history(EVENTS)), 0
        for part in (bodies[: EVENTS // 2], bodies[EVENTS // 2 :]):
            # Before the second kill, the worker has also folded some records since its restart.
            done = freeze_in_the_middle(env, worker, part, least_done=done + 1000)
            worker.signal(signal.SIGKILL)
            worker.wait(10)
            assert all(lags(env).values())
            worker.start()
        wait_folded(env, worker)
    assert_states_are_right(env, EVENTS)


def partitions_of(worker: WorkerProcess) -> set[int]:
    """Return a worker's partitions, according to its log."""
    told = worker.logged("ready")
    return set(told[-1]["partitions"]) if told else set()


def wait_shared_out(one: WorkerProcess, two: WorkerProcess) -> None:
    def shared_out() -> bool:
        first, second = partitions_of(one), partitions_of(two)
        return bool(first and second) and sorted([*first, *second]) == list(range(PARTITIONS))

    until(shared_out, within_s=60, what="each of two workers has partitions of its own")
    one.wait_ready()
    two.wait_ready()


def test_a_worker_that_restarts_at_once_with_a_different_address_continues(
    env: dict[str, str],
) -> None:
    """Until the killed worker's session ends, Kafka may assign partitions to the old address."""
    with WorkerProcess(env) as worker:
        worker.wait_ready()
        worker.signal(signal.SIGKILL)
        worker.wait(10)
    moved = env | {"LEDGER_WEB_PORT": str(free_port())}
    with WorkerProcess(moved) as worker:
        worker.wait_ready()
        deliver(moved, history(20))
        wait_folded(moved, worker)


def test_two_workers_share_the_partitions_and_one_worker_takes_over_when_the_other_is_killed(
    env: dict[str, str], tmp_path: Path
) -> None:
    with WorkerProcess(env) as one, WorkerProcess(second_of(env, tmp_path / "two")) as two:
        wait_shared_out(one, two)
        deliver(env, history(EVENTS // 2))
        wait_folded(env, one, two)
        assert_either_answers_for_every_order(one, two)
        rest = list(history(EVENTS))[EVENTS // 2 :]
        taken = partitions_of(two)
        freeze_in_the_middle(env, two, rest, least_done=EVENTS // 2 + 1, partitions=taken)
        two.signal(signal.SIGKILL)
        two.wait(10)
        assert all(lags(env, taken).values())
        wait_folded(env, one, within_s=90)
        until(lambda: one.get("/orders/ord%200%2F%C3%BC")[0] == 200, within_s=30, what="taken over")
        assert partitions_of(one) == set(range(PARTITIONS))
    assert_states_are_right(env, EVENTS)


def assert_either_answers_for_every_order(one: WorkerProcess, two: WorkerProcess) -> None:
    """Ask both workers for orders of each worker, and check that the owner of an order answers."""
    owned: dict[int, list[str]] = {0: [], 1: []}
    for n in range(40):
        partition = partition_for(f"ord {n}/ü".encode(), PARTITIONS)
        owned[partition in partitions_of(two)].append(path := f"/orders/ord%20{n}%2F%C3%BC")
        first, second = one.get(path), two.get(path)
        assert first == second
        assert first[0] == 200, first
        assert first[1]["order_id"] == f"ord {n}/ü"
    of_one, of_two = owned[0], owned[1]
    for asked, others, own in ((one, of_two, of_one), (two, of_one, of_two)):
        owner = two if asked is one else one
        owner.freeze()
        status, problem = asked.get(others[0])
        assert (status, problem["code"]) == (503, "unavailable")
        assert asked.get(own[0])[0] == 200
        owner.go_on()


def test_a_standby_has_every_table_of_the_other_worker_on_its_own_disk(
    env: dict[str, str], tmp_path: Path
) -> None:
    env["LEDGER_STANDBY_REPLICAS"] = "1"
    with WorkerProcess(env) as one, WorkerProcess(second_of(env, tmp_path / "two")) as two:
        wait_shared_out(one, two)
        deliver(env, history(6000))
        wait_folded(env, one, two)
        for table in TABLES:
            expected = changelog_of(env, table)
            for worker in (one, two):
                until(
                    lambda table=table, worker=worker, expected=expected: has_all(
                        worker, table, expected, tmp_path / "copies"
                    ),
                    within_s=30,
                    what=f"{table} of the partitions other than {partitions_of(worker)}",
                )


def has_all(
    worker: WorkerProcess, table: TableName, expected: dict[bytes, bytes], copies: Path
) -> bool:
    """Return whether a worker's databases have all rows of a table, as owner or as standby."""
    stored = {p: stored_in(worker, table, p, copies) for p in range(PARTITIONS)}
    own = partitions_of(worker)
    missing = [key for key in expected if key not in stored[partition_for(key, PARTITIONS)]]
    assert not any(partition_for(key, PARTITIONS) in own for key in missing)
    return not missing and all(stored.values())


def stored_in(
    worker: WorkerProcess, table: TableName, partition: int, copies: Path
) -> dict[bytes, bytes]:
    """Return a partition's rows from a copy of the database; the worker uses the original."""
    folder = Path(worker.env["LEDGER_DATA_DIR"]) / "tables"
    (database,) = folder.rglob(f"{table}-{partition}.db")
    copy = shutil.copytree(database, copies / uuid.uuid4().hex)
    with opened(copy, read_only=True) as db:
        return rows_of(db)


def changelog_of(env: dict[str, str], table: TableName) -> dict[bytes, bytes]:
    """Return the last value under each key of a table's changelog."""
    return latest(env, changelog_name(group_of(env), table))


def test_sigterm_stops_a_worker_on_time_after_it_has_committed_all_finished_work(
    env: dict[str, str],
) -> None:
    with WorkerProcess(env) as worker:
        worker.wait_ready()
        freeze_in_the_middle(env, worker, list(history(EVENTS)), least_done=EVENTS // 10)
        worker.signal(signal.SIGTERM)
        worker.go_on()
        assert worker.wait(within_s=10) == 0, worker.tail()
        assert lags(env)[names_of(env).webhooks] > 0
        assert_what_is_committed_is_what_was_done(env)
        worker.start()
        wait_folded(env, worker)
    assert_states_are_right(env, EVENTS)
    # No record was folded twice: each event has one record, and each event has one entry.
    for topic in (names_of(env).events, names_of(env).entries):
        assert len(read_topic(env, topic)) == EVENTS


def assert_what_is_committed_is_what_was_done(env: dict[str, str]) -> None:
    """Fold the committed records of each topic; compare the results with tables and outputs."""
    names = names_of(env)
    committed = committed_records(env, names.webhooks)
    by_partition = [[r for r in committed if r.partition == p] for p in range(PARTITIONS)]
    deduplicated = [deduplicate(records, {}, Reading()) for records in by_partition]
    stored_seen = changelog_of(env, "seen")
    del stored_seen[PROGRESS_KEY]
    expected_seen = {key: seen for result in deduplicated for key, seen in result.seen.items()}
    assert {k: SEEN.decode(v) for k, v in stored_seen.items()} == expected_seen
    events = [EVENTS_WIRE.decode(record.value) for record in read_topic(env, names.events)]
    expected_events = [event for result in deduplicated for event in result.events]
    assert sorted(events, key=place) == sorted(expected_events, key=place)

    events = [EVENTS_WIRE.decode(r.value) for r in committed_records(env, names.events)]
    folded = fold_payments(events, {})
    payments = changelog_of(env, "payments").items()
    assert {k.decode(): PAYMENTS.decode(v) for k, v in payments} == folded.payments
    entries = {ENTRIES.decode(record.value).entry_id for record in read_topic(env, names.entries)}
    assert entries == {entry.entry_id for entry in folded.entries}

    snapshots = [SNAPSHOTS.decode(r.value) for r in committed_records(env, names.payments)]
    orders = fold_orders(snapshots, {})
    stored_orders = changelog_of(env, "orders").items()
    assert {k.decode(): ORDERS.decode(v) for k, v in stored_orders} == orders


def place(event: Event) -> tuple[int, int]:
    return event.partition, event.offset


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


def test_a_worker_exits_after_an_unexpected_exception_and_folds_the_chunk_after_a_restart(
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


def test_a_different_body_with_the_same_event_id_is_rejected_and_the_first_body_counts(
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


def test_no_id_from_a_delivery_is_mistaken_for_a_reserved_key_of_a_table(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    """Faust's own key for a changelog's offset is a text that contains a control character."""
    env = environment(kafka.bootstrap, tmp_path)
    odd = Store.offset_key.decode()
    bodies = [
        event(odd, "payment.succeeded", "pay_1", 9, order="ord_1"),
        event("evt_2", "payment.succeeded", odd, 9, order="ord_1"),
        event("evt_3", "payment.succeeded", "pay_3", 9, order=odd),
        event("evt_4", "refund.succeeded", "re_1", 9, payment=odd),
        event("evt_5", "payment.succeeded", "pay_5", 9, order="ord_1"),
    ]
    with WorkerProcess(env) as worker:
        worker.wait_ready()
        deliver(env, bodies)
        wait_folded(env, worker)
        assert worker.get(f"/orders/{quote(odd)}")[1]["totals"]["KZT"]["paid"] == 9
        assert worker.get("/orders/ord_1")[1]["totals"]["KZT"]["paid"] == 9
    rejected = read_topic(env, names_of(env).rejected)
    reasons = [dict(record.headers)["reason"] for record in rejected]
    assert reasons == 3 * [b"control_characters"]


def test_bad_data_of_a_known_type_is_rejected_with_a_reason_and_changes_no_order(
    env: dict[str, str],
) -> None:
    good = event("evt_ok", "payment.succeeded", "pay_1", 500, order="ord_1")
    bad = {
        "amount_not_integer": event("evt_a", "payment.succeeded", "pay_2", 1.5),
        "amount_missing": event("evt_b", "payment.succeeded", "pay_3", None),
        "amount_negative": event("evt_c", "refund.succeeded", "re_1", -1, payment="pay_1"),
        "currency_unknown": {**good, "id": "evt_d", "data": {**good["data"], "currency": "ZZZ"}},
        "id_missing": event("evt_e", "payment.failed", "", 5),
        "reference_too_long": event("evt_f", "payment.succeeded", "x" * 513, 5),
        "control_characters": event("evt_g", "payment.succeeded", "pay_\0", 5),
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
