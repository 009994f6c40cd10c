"""Workers forget and delete old event ids, and later redeliveries of these events change no state.

The tests write the deliveries of several months to the log, each with its own time of arrival.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.kafka.broker import EmbeddedKafka
from ledger.deduplication import PROGRESS_KEY
from ledger.digest import RESERVED
from ledger.topics import changelog_name
from ledger.wire import ENTRIES, EVENTS, PROGRESS
from runtime.kafka.partitions import partition_for
from tests.kafka.answers import NOW_S, SECRET, deliver
from tests.kafka.harness import (
    PARTITIONS,
    WorkerProcess,
    environment,
    free_port,
    group_of,
    names_of,
    read_topic,
    run,
    until,
    wait_folded,
)
from tests.kafka.verification import named, verify

pytestmark = pytest.mark.timeout(400)

DAY_S = 24 * 3600
OLD = 400


def event(number: int, **data: Any) -> dict[str, Any]:
    content = {"id": f"pay_{number}", "amount": 500 + number, "currency": "KZT", **data}
    content.setdefault("merchantReference", f"ord_{number}")
    kind, created = "payment.succeeded", 1_700_000_000
    return {"id": f"evt_{number}", "type": kind, "created": created, "data": content}


def days_ago(days: int) -> int:
    return NOW_S - days * DAY_S


def one_in_each_partition(first: int) -> list[dict[str, Any]]:
    """Return an event for each partition; these events advance the log's time."""
    found: dict[int, dict[str, Any]] = {}
    number = first
    while len(found) < PARTITIONS:
        body = event(number)
        found.setdefault(partition_for(str(body["id"]).encode(), PARTITIONS), body)
        number += 1
    return list(found.values())


def seen(env: dict[str, str]) -> list[Any]:
    """Return the records in the changelog of `seen`, except those with reserved keys."""
    records = read_topic(env, changelog_name(group_of(env), "seen"))
    return [record for record in records if not record.key.startswith(RESERVED)]


def remembered(env: dict[str, str]) -> set[bytes]:
    """Return the event ids in the table `seen`."""
    latest = {record.key: record.value for record in seen(env) if record.key != PROGRESS_KEY}
    return {key for key, value in latest.items() if value is not None}


def states(env: dict[str, str]) -> tuple[dict[bytes, Any], dict[bytes, Any]]:
    names = names_of(env)
    orders = {record.key: json.loads(record.value) for record in read_topic(env, names.orders)}
    entries = {r.key: ENTRIES.decode(r.value) for r in read_topic(env, names.entries)}
    return orders, entries


class Worker(WorkerProcess):
    """A worker, and its states before the redeliveries."""

    before: tuple[dict[bytes, Any], dict[bytes, Any]]


@pytest.fixture(scope="module")
def ledger(kafka: EmbeddedKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """Run a worker that has folded deliveries from 200, 100 and 99 days ago.

    The deliveries from 100 days ago come in two groups. The first group advances the log's time.
    When the second group arrives, the worker deletes the old ids. The last deliveries, from 99 days
    ago, repeat some of the old ids.
    """
    folder = tmp_path_factory.mktemp("forgetting")
    env = environment(kafka.bootstrap, folder, webhook_secrets=SECRET)
    with Worker(env) as worker:
        worker.wait_ready(120)
        deliver(env, *map(event, range(OLD)), at_s=days_ago(200))
        wait_folded(env, worker, within_s=120)
        deliver(env, *one_in_each_partition(1000), at_s=days_ago(100))
        wait_folded(env, worker, within_s=120)
        worker.before = states(env)
        deliver(env, *one_in_each_partition(2000), at_s=days_ago(100))
        wait_folded(env, worker, within_s=120)
        assert remembered(env).isdisjoint({b"evt_%d" % n for n in range(OLD)})
        deliver(
            env,
            *map(event, range(20)),
            # Two events reuse old ids for new content. The first names the same payment as before,
            # and the second names a different payment.
            event(20, amount=1, merchantReference="ord_other"),
            event(21, id="pay_other", merchantReference="ord_other"),
            at_s=days_ago(99),
        )
        wait_folded(env, worker, within_s=120)
        yield worker


def test_forgotten_ids_are_deleted_by_tombstones_that_are_never_the_last_record_of_a_partition(
    ledger,
):
    env = ledger.env
    old = {b"evt_%d" % n for n in range(OLD)}
    again = {b"evt_%d" % n for n in range(22)}
    assert remembered(env) & old == again
    records = seen(env)
    tombstones = [record for record in records if record.value is None]
    assert {record.key for record in tombstones} == old
    # Each id has exactly one tombstone: no later chunk writes another tombstone for the id.
    assert len(tombstones) == OLD
    for partition in range(PARTITIONS):
        *_, last = (record for record in records if record.partition == partition)
        assert (last.key, last.value is None) == (PROGRESS_KEY, False)
        assert PROGRESS.decode(last.value).timestamp_ms >= (NOW_S - 100 * DAY_S) * 1000


def test_redeliveries_of_forgotten_ids_change_no_state_unless_they_name_a_different_payment(ledger):
    env = ledger.env
    events = [EVENTS.decode(record.value) for record in read_topic(env, names_of(env).events)]
    assert sorted(e.event_id for e in events if e.event_id == "evt_3") == ["evt_3", "evt_3"]
    (orders, entries), (orders_before, entries_before) = states(env), ledger.before
    for n in range(OLD):
        key = b"ord_%d" % n
        assert orders[key] == orders_before[key]
    for n in range(30):
        assert ledger.get(f"/orders/ord_{n}") == (200, orders_before[b"ord_%d" % n])
    assert {key: entries[key] for key in entries_before} == entries_before
    new = {entry.payment_id for key, entry in entries.items() if key not in entries_before}
    assert new == {"pay_other", *(body["data"]["id"] for body in one_in_each_partition(2000))}
    assert orders[b"ord_other"]["totals"]["KZT"]["paid"] == 521
    (line,) = ledger.logged("event_id_reused")
    assert (line["event_id"], line["payment_id"]) == ("evt_20", "pay_20")


def test_verify_and_audit_find_no_difference(ledger):
    env = ledger.env
    code, output = verify(env)
    assert (code, named(output)) == (0, []), output
    port = free_port()
    settings = env | {"LEDGER_AUDIT_PORT": str(port), "LEDGER_WEB_PORT": str(port)}
    settings["LEDGER_DATA_DIR"] = str(Path(env["LEDGER_DATA_DIR"]) / "audit")
    command = [*ledger.command[:-1], "audit"]
    with WorkerProcess(settings, command) as audit:
        until(lambda: audit.get("/readyz")[0] == 200, within_s=120, what=audit.tail())
        assert audit.logged("difference") == []


def test_verify_with_a_different_horizon_finds_differences(ledger):
    """The horizon is `LEDGER_FORGET_AFTER_DAYS`; a new value requires a fold from scratch."""
    code, output = verify(ledger.env, LEDGER_FORGET_AFTER_DAYS="200")
    assert code == 1
    for kind in ("seen_differs", "seen_missing", "payment_differs"):
        assert kind in output, output


def test_a_version_rebuilt_with_a_different_horizon_is_correct_but_the_old_version_differs(ledger):
    code, output = run(ledger.env | {"LEDGER_FORGET_AFTER_DAYS": "200"}, "rebuild", "--to", "3")
    assert code == 1
    assert "Version 3 is correct nevertheless" in output
    # The old version differs under the new horizon.
    assert "seen_missing" in output


def test_a_worker_that_lost_its_tables_restores_the_same_states_and_continues_to_forget_ids(ledger):
    env, before = ledger.env, states(ledger.env)
    ledger.process.terminate()
    assert ledger.wait(30) == 0, ledger.tail()
    shutil.rmtree(Path(env["LEDGER_DATA_DIR"]) / "tables")
    ledger.start()
    ledger.wait_ready(120)
    assert ledger.get("/orders/ord_other") == (200, before[0][b"ord_other"])
    deliver(env, *one_in_each_partition(3000), at_s=NOW_S)
    wait_folded(env, ledger, within_s=120)
    deliver(env, *one_in_each_partition(4000), event(5), at_s=NOW_S)
    wait_folded(env, ledger, within_s=120)
    kept = {str(body["id"]).encode() for n in (3000, 4000) for body in one_in_each_partition(n)}
    assert remembered(env) == {*kept, b"evt_5"}
    orders, entries = states(env)
    assert {key: orders[key] for key in before[0]} == before[0]
    assert {key: entries[key] for key in before[1]} == before[1]
    code, output = verify(env)
    assert (code, named(output)) == (0, []), output


def test_a_fold_of_the_log_from_scratch_gives_the_same_states(ledger, tmp_path):
    before = states(ledger.env)
    ledger.process.terminate()
    assert ledger.wait(30) == 0, ledger.tail()
    env = ledger.env | {"LEDGER_VERSION": "2", "LEDGER_DATA_DIR": str(tmp_path)}
    with WorkerProcess(env) as worker:
        worker.wait_ready(120)
        wait_folded(env, worker, within_s=180)
        assert states(env) == before
        code, output = verify(env)
        assert (code, named(output)) == (0, []), output
