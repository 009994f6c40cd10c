"""A refused delivery is shown with its order; if Plexy corrects the event, the new delivery counts.

A worker on the real broker folds the deliveries. The tests read the results from the views, the
quarantine, the proof and ``verify``.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from cli.kafka.broker import EmbeddedKafka
from ledger.topics import changelog_name
from ledger.wire import ORDERS, PAYMENTS
from runtime.kafka.batches import OutRecord
from tests.kafka.answers import NOW_S, SECRET, TOKEN, deliver, event, get, paid, refunded
from tests.kafka.harness import (
    WorkerProcess,
    environment,
    group_of,
    latest,
    names_of,
    read_topic,
    run,
    wait_folded,
    write,
)

pytestmark = pytest.mark.timeout(400)

DAY_S = 24 * 3600


@pytest.fixture
def worker(kafka: EmbeddedKafka, tmp_path: Path) -> Iterator[WorkerProcess]:
    env = environment(kafka.bootstrap, tmp_path / "worker", webhook_secrets=SECRET, api_token=TOKEN)
    with WorkerProcess(env) as started:
        started.wait_ready(90)
        yield started


def bad_refund(event_id: str, refund: str, payment: str) -> dict[str, Any]:
    refused = refunded(event_id, refund, payment)
    return refused | {"data": refused["data"] | {"amount": None}}


def told(env: dict[str, str], path: str) -> list[tuple[str, str]]:
    return [(each["event_id"], each["outcome"]) for each in get(env, path)["deliveries"]]


def states(env: dict[str, str]) -> dict[str, str]:
    """Return the state of each item of the quarantine, by event."""
    code, output = run(env, "rejected", "list", "--all", "--json")
    assert code == 0, output
    return {item["key"]: item["state"] for item in map(json.loads, output.splitlines())}


def story(env: dict[str, str]) -> None:
    """Deliver a payment, and also bodies that do not count but name the payment or its order."""
    without_id = paid("evt_5", "pay_2", "ord_1")
    del without_id["data"]["id"]
    deliver(env, paid("evt_1", "pay_1", "ord_1"), at_s=NOW_S - 600)
    deliver(env, bad_refund("evt_2", "re_1", "pay_1"), at_s=NOW_S - 500)
    deliver(env, event("evt_3", "dispute.lost", "dp_1", 9, payment_id="pay_1"), at_s=NOW_S - 400)
    deliver(env, paid("evt_1", "pay_1", "ord_1"), at_s=NOW_S - 300)
    deliver(env, paid("evt_1", "pay_1", "ord_1", 999), at_s=NOW_S - 200)
    deliver(env, without_id, at_s=NOW_S - 100)
    wait_folded(env)


def test_an_order_shows_all_deliveries_that_name_it_and_a_missing_delivery_is_found_by_verify(
    worker, tmp_path
):
    env = worker.env
    story(env)
    outcomes = [
        ("evt_1", "folded"),
        ("evt_2", "amount_missing"),
        ("evt_3", "unfolded"),
        ("evt_1", "duplicate"),
        ("evt_1", "event_id_reused"),
        ("evt_5", "id_missing"),
    ]
    assert told(env, "/orders/ord_1/events") == outcomes
    assert told(env, "/payments/pay_1/events") == outcomes[:-1]
    order = get(env, "/orders/ord_1")
    assert order["anomalies"] == ["refused_event", "unfolded_event"]
    assert (order["status"], order["version"]) == ("paid", 1)
    assert [note["event_id"] for note in order["notes"]] == ["evt_1", "evt_2", "evt_3", "evt_5"]
    payment = get(env, "/payments/pay_1")
    assert [note["event_id"] for note in payment["notes"]] == ["evt_1", "evt_2", "evt_3"]

    proof = tmp_path / "proof.json"
    proof.write_text(json.dumps(get(env, "/orders/ord_1/proof")))
    code, output = run(env, "prove", proof)
    assert code == 0, output
    assert "6 deliveries" in output
    code, output = run(env, "verify")
    assert code == 0, output

    payments, orders = (changelog_name(group_of(env), name) for name in ("payments", "orders"))
    held = PAYMENTS.decode(latest(env, payments)[b"pay_1"])
    row = PAYMENTS.encode(replace(held, notes=held.notes[1:]))
    write(env, payments, [OutRecord(b"pay_1", row)])
    state = ORDERS.decode(latest(env, orders)[b"ord_1"])
    kept = {name: each for name, each in state.payments.items() if name != "evt_5"}
    write(env, orders, [OutRecord(b"ord_1", ORDERS.encode(replace(state, payments=kept)))])
    code, output = run(env, "verify")
    assert code == 1, output
    assert "payment_differs" in output
    assert "it lacks the note about event evt_1" in output
    assert "order_differs" in output
    assert "payment evt_5: it is not in the order" in output


def test_a_corrected_redelivery_counts_exactly_once_despite_a_crash_and_closes_the_rejection(
    worker,
):
    env = worker.env
    bad = paid("evt_1", "pay_1", "ord_1")
    bad["data"]["amount"] = None
    deliver(env, bad)
    deliver(env, bad)
    wait_folded(env)
    assert get(env, "/orders/ord_1")["status"] == "unknown"
    assert get(env, "/orders/ord_1")["anomalies"] == ["refused_event"]
    assert states(env) == {"evt_1": "open"}

    worker.process.kill()
    worker.wait(30)
    deliver(env, paid("evt_1", "pay_1", "ord_1"))
    deliver(env, bad)
    deliver(env, paid("evt_1", "pay_1", "ord_1"))
    worker.start()
    worker.wait_ready(90)
    wait_folded(env)
    order = get(env, "/orders/ord_1")
    assert (order["status"], order["anomalies"], order["version"]) == ("paid", [], 1)
    assert {note["corrected"] for note in order["notes"]} == {True}
    assert [outcome for _, outcome in told(env, "/orders/ord_1/events")] == [
        "amount_missing",
        "duplicate",
        "folded",
        "amount_missing",
        "duplicate",
    ]
    assert get(env, "/events/evt_1")["outcome"] == "folded"
    assert states(env) == {"evt_1": "corrected"}
    found = get(env, "/rejected?state=corrected")["items"]
    assert [item["event_id"] for item in found] == ["evt_1", "evt_1"]
    code, output = run(env, "verify")
    assert code == 0, output

    code, output = run(env, "rejected", "retry", "--all", "--again")
    assert code == 1, output
    assert "still rejected: amount_missing" in output
    assert len(read_topic(env, names_of(env).webhooks)) == 5


def test_a_correction_that_names_another_order_removes_the_anomaly_of_the_first_order(
    worker, tmp_path
):
    env = worker.env
    bad = paid("evt_1", "pay_1", "ord_1")
    bad["data"]["amount"] = None
    deliver(env, bad)
    deliver(env, paid("evt_1", "pay_2", "ord_2"))
    wait_folded(env)
    assert get(env, "/orders/ord_1")["anomalies"] == []
    assert get(env, "/orders/ord_2")["status"] == "paid"
    assert [name for name, _ in told(env, "/orders/ord_1/events")] == ["evt_1", "evt_1"]
    code, output = run(env, "verify")
    assert code == 0, output
    for order_id in ("ord_1", "ord_2"):
        proof = tmp_path / f"{order_id}.json"
        proof.write_text(json.dumps(get(env, f"/orders/{order_id}/proof")))
        code, output = run(env, "prove", proof)
        assert code == 0, output


def test_an_event_that_is_corrected_after_its_refusal_was_forgotten_counts_as_new(worker):
    env = worker.env
    bad = paid("evt_1", "pay_1", "ord_1", created=NOW_S - 100 * DAY_S)
    bad["data"]["amount"] = None
    deliver(env, bad, at_s=NOW_S - 100 * DAY_S)
    wait_folded(env)
    deliver(env, paid("evt_1", "pay_1", "ord_1"))
    wait_folded(env)
    order = get(env, "/orders/ord_1")
    assert (order["status"], order["version"]) == ("paid", 1)
    assert order["anomalies"] == ["refused_event"]
    code, output = run(env, "verify")
    assert code == 0, output
