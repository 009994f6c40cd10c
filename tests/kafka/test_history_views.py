"""The views answer with the history of an order or an event, and with the proof of an order."""

import json
import shutil
import sys
from collections.abc import Mapping

import msgspec
import pytest
from msgspec.structs import replace

from ledger.orders import Order
from ledger.topics import changelog_name
from ledger.trust import Trust
from ledger.verification.proof import Proof, check
from ledger.wire import ORDERS
from runtime.kafka.batches import OutRecord
from tests.kafka.answers import (
    NOW_S,
    SECRET,
    TOKEN,
    Answer,
    ask,
    assert_problem,
    deliver,
    event,
    folded,
    get,
    paid,
    refunded,
    refuse,
)
from tests.kafka.harness import (
    WorkerProcess,
    environment,
    group_of,
    latest,
    until,
    wait_folded,
    write,
)

pytestmark = pytest.mark.timeout(240)


@pytest.mark.usefixtures("story")
class TestHistory:
    def test_the_deliveries_of_an_order_are_listed_with_their_outcomes(self, env):
        found = get(env, "/orders/ord%2F1/events")["deliveries"]
        assert [(each["event_id"], each["outcome"]) for each in found] == [
            ("evt_failed", "folded"),
            ("evt_paid", "folded"),
            ("evt_refund", "folded"),
            ("evt_left", "folded"),
            ("evt_moves", "folded"),
            ("evt_paid", "duplicate"),
            ("evt_paid", "event_id_reused"),
            ("evt_more", "folded"),
        ]
        assert {each["signature"] for each in found} == {"good"}
        assert "body" not in found[0]
        assert [each["received_at_ms"] for each in found] == sorted(
            each["received_at_ms"] for each in found
        )

    def test_with_the_parameter_raw_each_delivery_has_its_body_from_the_log(self, env):
        found = get(env, "/orders/ord%2F1/events?raw=true")["deliveries"]
        bodies = [json.loads(msgspec.convert(each["body"], bytes)) for each in found]
        assert [body["id"] for body in bodies] == [each["event_id"] for each in found]
        assert bodies[1]["data"]["merchantReference"] == "ord/1"

    @pytest.mark.parametrize(
        ("ago_s", "status", "refunds"),
        [(550, "failed", 0), (450, "paid", 0), (390, "partially_refunded", 100)],
    )
    def test_an_order_as_of_a_time_has_the_events_that_had_arrived_by_then(
        self, env, ago_s, status, refunds
    ):
        order = get(env, f"/orders/ord%2F1?as_of={NOW_S - ago_s}")
        assert order["status"] == status
        assert sum(total["refunded"] for total in order["totals"].values()) == refunds

    def test_a_payment_is_in_its_old_order_as_of_a_time_before_its_move(self, env):
        then = get(env, f"/orders/ord%2F1?as_of={NOW_S - 330}")
        now = get(env, "/orders/ord%2F1")
        assert [payment["payment_id"] for payment in then["payments"]] == ["pay_1", "pay_2"]
        assert [payment["payment_id"] for payment in now["payments"]] == ["pay_1"]

    def test_as_of_a_time_before_all_deliveries_there_is_no_order(self, env):
        answer = ask(env, "/orders/ord%2F1?as_of=2001-01-01")
        assert_problem(answer, 404, "order_not_found")
        assert answer.json["detail"] == "no event of order 'ord/1' had arrived by '2001-01-01'"

    def test_as_of_a_future_time_the_order_has_the_same_bytes_as_now(self, env):
        now = ask(env, "/orders/ord%2F1")
        then = ask(env, "/orders/ord%2F1?as_of=2100-01-01T00:00:00%2B02:00")
        assert then.body == now.body

    def test_an_unknown_order_has_no_history(self, env):
        for path in ("/orders/nobody/events", "/orders/nobody/proof", "/orders/nobody?as_of=1"):
            assert_problem(ask(env, path), 404, "order_not_found")

    def test_an_event_names_its_order_and_lists_its_redeliveries(self, env):
        found = get(env, "/events/evt_paid")
        assert (found["outcome"], found["payment_id"], found["order_id"]) == (
            "folded",
            "pay_1",
            "ord/1",
        )
        outcomes = [each["outcome"] for each in found["deliveries"]]
        assert outcomes == ["folded", "duplicate", "event_id_reused"]

    def test_an_event_that_is_not_folded_has_the_reason_as_its_outcome(self, envs, env):
        folded(
            envs[0],
            event("evt_kept", "dispute.opened", "dp_1", 5),
            event("evt_bad", "payment.succeeded", "pay_bad", -5),
        )
        assert get(env, "/events/evt_kept")["outcome"] == "unfolded"
        found = get(env, "/events/evt_bad")
        assert (found["outcome"], "data.amount" in found["detail"]) == ("amount_negative", True)
        assert "order_id" not in found

    def test_an_event_that_ingress_refused_has_the_reason_of_the_refusal(self, envs, env):
        name = f"refused_{env['LEDGER_WEB_PORT']}"
        refuse(envs[0], json.dumps({"id": name, "type": 7}).encode())
        found = get(env, f"/events/{name}")
        assert (found["outcome"], found["deliveries"]) == ("invalid_envelope", [])
        assert "`type`" in found["detail"]

    def test_an_event_that_never_arrived_is_not_found(self, env):
        assert_problem(ask(env, "/events/evt_never"), 404, "event_not_found")

    def test_a_proof_is_valid_offline_and_contains_the_document_that_the_view_shows(self, env):
        answer = ask(env, "/orders/ord%2F1/proof")
        assert 'filename="proof.json"' in answer.headers["Content-Disposition"]
        proof = msgspec.json.decode(answer.body, type=Proof)
        checked = check(proof, Trust(secrets=(SECRET.encode(),)))
        assert checked.faults == ()
        assert (checked.deliveries, checked.events, checked.signatures) == (8, 6, 8)
        assert answer.json["order"] == get(env, "/orders/ord%2F1")


@pytest.mark.usefixtures("story")
class TestConditionalRequests:
    @pytest.mark.parametrize("path", ["/orders/ord%2F1", "/payments/pay_1"])
    def test_a_client_that_has_the_current_document_gets_304(self, env, path):
        first = ask(env, path)
        tag = first.headers["ETag"]
        assert tag.startswith(f'"{first.json["version"]}-')
        for known in (tag, f'W/{tag}, "other"', "*"):
            answer = conditional(env, path, known)
            assert (answer.status, answer.body, answer.headers["ETag"]) == (304, b"", tag)
        assert conditional(env, path, '"other"').status == 200


def conditional(env: Mapping[str, str], path: str, tag: str) -> Answer:
    return ask(env, path, headers={"If-None-Match": tag})


def test_the_proof_of_an_order_that_contradicts_the_log_is_refused_with_the_difference(
    kafka, tmp_path
):
    """The test alters the changelog and deletes the tables, so the worker restores a wrong row."""
    env = environment(kafka.bootstrap, tmp_path, api_token=TOKEN, webhook_secrets=SECRET)
    with WorkerProcess(env) as worker:
        worker.wait_ready(90)
        folded(env, paid("evt_1", "pay_1", "ord_1"), paid("evt_2", "pay_2", "ord_2"))
        worker.stop(20)
        changelog = changelog_name(group_of(env), "orders")
        held = ORDERS.decode(latest(env, changelog)[b"ord_1"])
        snapshot = held.payments["pay_1"]
        assert snapshot.payment
        wrong = replace(snapshot, payment=replace(snapshot.payment, amount=501))
        altered = ORDERS.encode(Order("ord_1", {"pay_1": wrong}))
        write(env, changelog, [OutRecord(b"ord_1", altered)])
        shutil.rmtree(tmp_path / "tables")
        worker.start()
        worker.wait_ready(90)
        assert get(env, "/orders/ord_1")["totals"]["KZT"]["paid"] == 501
        for _ in range(2):
            answer = ask(env, "/orders/ord_1/proof")
            assert_problem(answer, 500, "contradicts_log")
            assert 'totals: got {"KZT":{"paid":501' in answer.json["detail"]
            assert "; payment pay_1: got " in answer.json["detail"]
        assert len(worker.logged("an order contradicts the log")) == 2
        assert ask(env, "/orders/ord_2/proof").status == 200


HOLDS_PAYMENTS = """
import asyncio, os, pathlib
from processors.engine.effects import Effects
from processors.settings import WorkerSettings
from processors.worker import run
hold = pathlib.Path(os.environ["LEDGER_DATA_DIR"]) / "hold"
write_table = Effects._write_table
async def held(effects):
    while effects._table.name == "payments" and hold.exists():
        await asyncio.sleep(0.02)
    await write_table(effects)
Effects._write_table = held
run(WorkerSettings.from_environment(os.environ))
"""


def test_an_order_that_a_payment_has_just_left_does_not_contradict_the_log(kafka, tmp_path):
    """The agent `payments` has published that the payment left, but has not written its table."""
    env = environment(kafka.bootstrap, tmp_path, api_token=TOKEN)
    with WorkerProcess(env, [sys.executable, "-c", HOLDS_PAYMENTS]) as worker:
        worker.wait_ready(90)
        folded(env, paid("evt_1", "pay_1", "ord_1"), paid("evt_2", "pay_2", "ord_1"))
        (tmp_path / "hold").touch()
        deliver(env, paid("evt_3", "pay_2", "ord_2", created=NOW_S - 5))
        until(lambda: get(env, "/orders/ord_1")["version"] == 1, within_s=20, what="a payment left")
        for path in ("/orders/ord_1/proof", "/orders/ord_1/events"):
            answer = ask(env, path)
            assert_problem(answer, 503, "changing")
            assert "payment 'pay_2' has left the order" in answer.json["detail"]
        (tmp_path / "hold").unlink()
        wait_folded(env)
        assert ask(env, "/orders/ord_1/proof").status == 200
        assert not worker.logged("an order contradicts the log")


HOLDS_FIVE = """
import os
from processors.settings import WorkerSettings
from processors.views import deliveries
from processors.worker import run
deliveries.MOST_DELIVERIES = 5
run(WorkerSettings.from_environment(os.environ))
"""


def test_an_order_with_more_deliveries_than_fit_in_an_answer_gets_413(kafka, tmp_path):
    env = environment(kafka.bootstrap, tmp_path, api_token=TOKEN)
    with WorkerProcess(env, [sys.executable, "-c", HOLDS_FIVE]) as worker:
        worker.wait_ready(90)
        of_many = [refunded(f"evt_{n}", f"re_{n}", "pay_1", 1) for n in range(5)]
        folded(env, paid("evt_1_", "pay_1", "ord_1"), *of_many[:4])
        assert len(get(env, "/orders/ord_1/events")["deliveries"]) == 5
        # A redelivery adds a delivery to the order, but adds no event.
        folded(env, of_many[0])
        for path in (
            "/orders/ord_1/events",
            "/orders/ord_1/proof",
            "/orders/ord_1?as_of=2999-01-01",
        ):
            assert_problem(ask(env, path), 413, "order_too_large")
        assert ask(env, "/orders/ord_1").status == 200
