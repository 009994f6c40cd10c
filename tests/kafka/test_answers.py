"""What the views answer beyond an order's state: its history, its proof, lists, balances.

Two workers share the partitions, and each is asked for everything: half of what it needs is the
other one's.
"""

import asyncio
import json
import time
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any
from urllib.parse import quote

import msgspec
import pytest

from cli.kafka import EmbeddedKafka
from ingest.records import Delivery, readable_event_id, rejected_delivery_record
from ledger.envelope import decode_envelope
from ledger.proof import Proof, check
from ledger.rejections import Rejection
from ledger.signature import sign
from ledger.truth import Trust
from processors.batches import OutRecord, send_by_key
from processors.views import parameters
from tests.kafka.harness import (
    PARTITIONS,
    WorkerProcess,
    environment,
    free_port,
    names_of,
    producer,
    read_topic,
    until,
    wait_folded,
    write,
)
from tests.kafka.test_views import TOKEN, Answer, ask, assert_problem

pytestmark = pytest.mark.timeout(240)

SECRET = "whsec_of_the_tests"
NOW_S = int(time.time())


def event(
    event_id: str, kind: str, payment: str, amount: int, *, created: int = NOW_S, **more: Any
) -> dict[str, Any]:
    data = {"id": payment, "amount": amount, "currency": "KZT", **more}
    return {"id": event_id, "type": kind, "created": created, "data": data}


def paid(event_id: str, payment: str, order: str, amount: int = 500, **more: Any) -> dict[str, Any]:
    more = {"merchantReference": order, **more}
    return event(event_id, "payment.succeeded", payment, amount, **more)


def refunded(event_id: str, refund: str, payment: str, amount: int = 100) -> dict[str, Any]:
    return event(event_id, "refund.succeeded", refund, amount, payment_id=payment)


def deliver(
    env: Mapping[str, str],
    *bodies: Mapping[str, Any] | bytes,
    key: str | None = None,
    at_s: float | None = None,
) -> None:
    """Append signed bodies to the log of record, as ingress does."""

    async def send() -> None:
        async with producer(env["LEDGER_KAFKA_BOOTSTRAP"]) as client:
            await send_by_key(client, names_of(env).webhooks, map(record, bodies), PARTITIONS)

    def record(body: Mapping[str, Any] | bytes) -> OutRecord:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        arrived = at_s or time.time()
        headers = [
            ("plexy-signature", sign(raw, SECRET.encode(), int(arrived)).encode()),
            ("received-at-ms", b"%d" % (arrived * 1000)),
            ("content-type", b"application/json"),
        ]
        event_id = key if isinstance(body, bytes) else str(body["id"])
        return OutRecord(str(event_id).encode(), raw, headers, int(arrived * 1000))

    asyncio.run(send())


def refuse(env: Mapping[str, str], body: bytes) -> None:
    """Keep a body that is no envelope, as ingress does."""
    names = names_of(env)
    arrived = Delivery(b"t=1,v1=0", b"application/json", len(body), int(time.time() * 1000))
    rejection = decode_envelope(body)
    assert isinstance(rejection, Rejection)
    event_id = readable_event_id(body)
    kept = rejected_delivery_record(names, arrived, body, rejection, event_id)

    async def send() -> None:
        async with producer(env["LEDGER_KAFKA_BOOTSTRAP"]) as client:
            record = OutRecord(kept.key, kept.value, kept.headers, kept.timestamp_ms)
            await send_by_key(client, names.rejected, [record], PARTITIONS)

    asyncio.run(send())


@pytest.fixture(scope="module")
def envs(
    kafka: EmbeddedKafka, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[dict[str, str], dict[str, str]]]:
    """Run two workers of one ledger; yield the environment of each."""
    one = environment(
        kafka.bootstrap,
        tmp_path_factory.mktemp("answers"),
        api_token=TOKEN,
        webhook_secrets=SECRET,
    )
    other = one | {
        "LEDGER_DATA_DIR": str(tmp_path_factory.mktemp("other")),
        "LEDGER_WEB_PORT": str(free_port()),
    }
    with WorkerProcess(one) as first, WorkerProcess(other) as second:
        first.wait_ready(90)
        second.wait_ready(90)
        yield one, other


@pytest.fixture(params=[0, 1], ids=["one worker", "the other"])
def env(envs: tuple[dict[str, str], dict[str, str]], request: pytest.FixtureRequest) -> Any:
    return envs[request.param]


def get(env: Mapping[str, str], path: str) -> Any:
    answer = ask(env, path)
    assert answer.status == 200, answer
    return answer.json


def folded(env: Mapping[str, str], *bodies: Any, **more: Any) -> None:
    deliver(env, *bodies, **more)
    wait_folded(env)


@pytest.fixture(scope="module")
def story(envs: tuple[dict[str, str], dict[str, str]]) -> dict[str, str]:
    """Deliver an order: failure, payment, refunds, a duplicate, and a payment that leaves it."""
    env = envs[0]
    failed = event(
        "evt_failed", "payment.failed", "pay_1", 500, created=NOW_S - 9, merchantReference="ord/1"
    )
    deliver(env, failed, at_s=NOW_S - 600)
    deliver(env, paid("evt_paid", "pay_1", "ord/1"), at_s=NOW_S - 500)
    deliver(env, refunded("evt_refund", "re_1", "pay_1"), at_s=NOW_S - 400)
    deliver(env, paid("evt_left", "pay_2", "ord/1", 70, created=NOW_S - 5), at_s=NOW_S - 350)
    deliver(env, paid("evt_moves", "pay_2", "ord 2", 70, created=NOW_S - 8), at_s=NOW_S - 320)
    deliver(env, paid("evt_paid", "pay_1", "ord/1"), at_s=NOW_S - 300)
    deliver(env, paid("evt_paid", "pay_1", "ord/1", 999), at_s=NOW_S - 250)
    deliver(env, refunded("evt_more", "re_2", "pay_1", 450), at_s=NOW_S - 200)
    wait_folded(env)
    return env


@pytest.mark.usefixtures("story")
class TestHistory:
    def test_an_order_s_deliveries_are_told_with_what_became_of_each(self, env):
        told = get(env, "/orders/ord%2F1/events")["deliveries"]
        assert [(each["event_id"], each["outcome"]) for each in told] == [
            ("evt_failed", "folded"),
            ("evt_paid", "folded"),
            ("evt_refund", "folded"),
            ("evt_left", "folded"),
            ("evt_moves", "folded"),
            ("evt_paid", "duplicate"),
            ("evt_paid", "event_id_reused"),
            ("evt_more", "folded"),
        ]
        assert {each["signature"] for each in told} == {"good"}
        assert "body" not in told[0]
        assert [each["received_at_ms"] for each in told] == sorted(
            each["received_at_ms"] for each in told
        )

    def test_with_raw_the_bytes_are_those_of_the_log(self, env):
        told = get(env, "/orders/ord%2F1/events?raw=true")["deliveries"]
        bodies = [json.loads(msgspec.convert(each["body"], bytes)) for each in told]
        assert [body["id"] for body in bodies] == [each["event_id"] for each in told]
        assert bodies[1]["data"]["merchantReference"] == "ord/1"

    @pytest.mark.parametrize(
        ("ago_s", "status", "refunds"),
        [(550, "failed", 0), (450, "paid", 0), (390, "partially_refunded", 100)],
    )
    def test_as_of_a_time_an_order_is_what_had_arrived_by_then(self, env, ago_s, status, refunds):
        order = get(env, f"/orders/ord%2F1?as_of={NOW_S - ago_s}")
        assert order["status"] == status
        assert sum(total["refunded"] for total in order["totals"].values()) == refunds

    def test_as_of_before_it_left_a_payment_is_in_its_old_order(self, env):
        then = get(env, f"/orders/ord%2F1?as_of={NOW_S - 330}")
        now = get(env, "/orders/ord%2F1")
        assert [payment["payment_id"] for payment in then["payments"]] == ["pay_1", "pay_2"]
        assert [payment["payment_id"] for payment in now["payments"]] == ["pay_1"]

    def test_as_of_before_everything_there_is_no_order(self, env):
        assert_problem(ask(env, "/orders/ord%2F1?as_of=2001-01-01"), 404, "order_not_found")

    def test_as_of_now_is_the_order_to_the_byte(self, env):
        now = ask(env, "/orders/ord%2F1")
        then = ask(env, "/orders/ord%2F1?as_of=2100-01-01T00:00:00%2B02:00")
        assert then.body == now.body

    def test_an_order_that_is_not_there_has_no_history(self, env):
        for path in ("/orders/nobody/events", "/orders/nobody/proof", "/orders/nobody?as_of=1"):
            assert_problem(ask(env, path), 404, "order_not_found")

    def test_an_event_tells_what_it_was_folded_into_and_when_it_came_again(self, env):
        told = get(env, "/events/evt_paid")
        assert (told["outcome"], told["payment_id"], told["order_id"]) == (
            "folded",
            "pay_1",
            "ord/1",
        )
        outcomes = [each["outcome"] for each in told["deliveries"]]
        assert outcomes == ["folded", "duplicate", "event_id_reused"]

    def test_an_event_of_a_type_that_is_not_folded_and_one_with_bad_data_say_so(self, envs, env):
        folded(
            envs[0],
            event("evt_kept", "dispute.opened", "dp_1", 5),
            event("evt_bad", "payment.succeeded", "pay_bad", -5),
        )
        assert get(env, "/events/evt_kept")["outcome"] == "unfolded"
        told = get(env, "/events/evt_bad")
        assert (told["outcome"], "data.amount" in told["detail"]) == ("amount_negative", True)
        assert "order_id" not in told

    def test_an_event_that_ingress_refused_says_why(self, envs, env):
        name = f"refused_{env['LEDGER_WEB_PORT']}"
        refuse(envs[0], json.dumps({"id": name, "type": "t"}).encode())
        told = get(env, f"/events/{name}")
        assert (told["outcome"], told["deliveries"]) == ("invalid_envelope", [])
        assert "created" in told["detail"]

    def test_an_event_that_never_came_is_not_there(self, env):
        assert_problem(ask(env, "/events/evt_never"), 404, "event_not_found")

    def test_a_proof_holds_offline_and_its_state_is_the_view_s(self, env):
        answer = ask(env, "/orders/ord%2F1/proof")
        assert 'filename="proof.json"' in answer.headers["Content-Disposition"]
        proof = msgspec.json.decode(answer.body, type=Proof)
        checked = check(proof, Trust(secrets=(SECRET.encode(),)))
        assert checked.faults == ()
        assert (checked.deliveries, checked.events, checked.signatures) == (8, 6, 8)
        assert answer.json["order"] == get(env, "/orders/ord%2F1")


class TestReadYourWrite:
    def test_an_answer_that_waits_for_an_event_has_it(self, env):
        number = env["LEDGER_WEB_PORT"]
        for n in range(5):
            deliver(env, paid(f"evt_{number}_{n}", f"pay_{number}_{n}", f"wait_{number}", 1))
            path = f"/orders/wait_{number}?event=evt_{number}_{n}&wait=15s"
            assert get(env, path)["totals"]["KZT"]["paid"] == n + 1
            path = f"/payments/pay_{number}_{n}?event=evt_{number}_{n}&wait=15s"
            assert get(env, path)["order_id"] == f"wait_{number}"

    @pytest.mark.usefixtures("story")
    def test_an_event_that_does_not_come_is_a_504_that_says_where_it_is(self, env):
        for event_id, where in [
            ("evt_never", "not met it"),
            ("evt_moves", "order 'ord 2'"),
        ]:
            answer = ask(env, f"/orders/ord%2F1?event={event_id}&wait=100ms")
            assert_problem(answer, 504, "event_not_folded")
            assert where in answer.json["detail"]
        answer = ask(env, "/orders/nobody?event=evt_never")
        assert_problem(answer, 504, "event_not_folded")

    @pytest.mark.parametrize("wait", ["-1s", "5m", "21", "soon", "1e3", "5 s"])
    def test_a_wait_that_is_none_is_refused_by_name(self, env, wait):
        answer = ask(env, f"/orders/ord_1?event=evt_1&wait={quote(wait)}")
        assert_problem(answer, 400, "invalid_parameter")
        assert answer.json["field"] == "wait"


@pytest.mark.usefixtures("story")
class TestConditionalRequests:
    @pytest.mark.parametrize("path", ["/orders/ord%2F1", "/payments/pay_1"])
    def test_whoever_has_the_document_is_told_so(self, env, path):
        first = ask(env, path)
        tag = first.headers["ETag"]
        assert tag.startswith(f'"{first.json["version"]}-')
        for known in (tag, f'W/{tag}, "other"', "*"):
            answer = conditional(env, path, known)
            assert (answer.status, answer.body, answer.headers["ETag"]) == (304, b"", tag)
        assert conditional(env, path, '"other"').status == 200


def conditional(env: Mapping[str, str], path: str, tag: str) -> Answer:
    return ask(env, path, headers={"If-None-Match": tag})


def listed(env: Mapping[str, str], query: str) -> list[dict[str, Any]]:
    """Return all pages of a list."""
    orders: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = get(env, f"/orders?{query}{cursor}")
        orders += page["orders"]
        if page["cursor"] is None:
            return orders
        cursor = f"&cursor={page['cursor']}"


class TestLists:
    def test_orders_are_listed_once_each_as_they_are_now_the_latest_change_first(self, envs, env):
        prefix = f"list_{env['LEDGER_WEB_PORT']}_"
        for number in range(30):
            deliver(envs[0], paid(f"{prefix}{number}", f"{prefix}p{number}", f"{prefix}{number}"))
        wait_folded(env)
        for number in range(5):
            deliver(envs[0], refunded(f"{prefix}r{number}", f"{prefix}r", f"{prefix}p{number}"))
        wait_folded(env)
        orders = [each for each in listed(env, "limit=7") if each["order_id"].startswith(prefix)]
        names = [each["order_id"] for each in orders]
        assert sorted(names) == sorted(f"{prefix}{number}" for number in range(30))
        assert set(names[:5]) == {f"{prefix}{number}" for number in range(5)}
        for each in orders:
            now = get(env, f"/orders/{each['order_id']}")
            assert (each["status"], each["version"]) == (now["status"], now["version"])
        refunds = listed(env, "status=partially_refunded&limit=2")
        assert {each["order_id"] for each in refunds} >= set(names[:5])
        assert {each["status"] for each in refunds} == {"partially_refunded"}

    def test_orders_with_an_anomaly_are_found_by_its_name(self, envs, env):
        name = f"lone_{env['LEDGER_WEB_PORT']}"
        folded(envs[0], refunded(f"evt_{name}", f"re_{name}", name))
        orders = listed(env, "anomaly=refund_without_payment")
        (lone,) = [each for each in orders if each["order_id"] == name]
        assert (lone["waiting_since"], lone["changed_at_ms"]) == (NOW_S, None)
        assert all("refund_without_payment" in each["anomalies"] for each in orders)
        assert name in [each["order_id"] for each in listed(env, "anomaly=any")]
        folded(envs[0], paid(f"evt_p_{name}", name, name))
        orders = listed(env, "anomaly=refund_without_payment")
        assert name not in [each["order_id"] for each in orders]

    def test_by_anomaly_the_latest_event_is_first_and_what_changes_shifts_no_page(self, envs, env):
        prefix = f"old_{env['LEDGER_WEB_PORT']}_"
        # What is delivered first happened last, and all of it long ago.
        orders = [f"{prefix}{number:02}" for number in range(12)]
        for number, name in enumerate(orders):
            at = (1000 - number) * 86_400
            pays = paid(f"{name}p", name, name, 10, created=at)
            back = event(f"{name}r", "refund.succeeded", f"{name}re", 11, created=at)
            back["data"]["payment_id"] = name
            deliver(envs[0], pays, back)
        wait_folded(env)
        asked = "/orders?anomaly=refund_exceeds_payment&status=over_refunded&limit=5"
        found: list[str] = []
        cursor, has_changed = "", False
        while cursor is not None:
            page = get(env, f"{asked}&cursor={cursor}")
            found += [each["order_id"] for each in page["orders"] if each["order_id"] in orders]
            cursor = page["cursor"]
            if found and not has_changed:
                # One that was listed goes to the front.
                more = event(
                    f"{prefix}more", "refund.succeeded", "more", 1, created=int(time.time())
                )
                more["data"]["payment_id"] = found[0]
                folded(envs[0], more)
                has_changed = True
        assert found == orders
        assert listed(env, "anomaly=any")[0]["order_id"] == orders[0]
        since = 992 * 86_400
        told = [each["order_id"] for each in listed(env, f"anomaly=any&since={since}")]
        assert [name for name in told if name in orders] == orders[:9]
        assert listed(env, f"anomaly=any&since={since}&status=failed") == []

    def test_an_order_that_is_published_again_is_listed_once(self, envs, env):
        """As after a crash: what a chunk had published stands there a second time."""
        prefix = f"twice_{env['LEDGER_WEB_PORT']}_"
        names = [f"{prefix}{number}" for number in range(9)]
        folded(envs[0], *(paid(name, name, name) for name in names))
        topic = names_of(env).orders
        published = [r for r in read_topic(env, topic) if r.key.decode().startswith(prefix)]
        write(env, topic, [OutRecord(r.key, r.value) for r in published])
        for limit in (1, 2, 5):
            orders = [each["order_id"] for each in listed(env, f"limit={limit}&since={NOW_S - 60}")]
            assert sorted(name for name in orders if name in names) == names

    def test_an_order_that_is_again_what_it_was_is_listed_once(self, envs, env):
        name = f"again_{env['LEDGER_WEB_PORT']}"
        folded(envs[0], paid(name, name, name))
        folded(envs[0], paid(f"{name}_next", f"{name}_next", f"{name}_next"))
        folded(envs[0], paid(f"{name}_in", f"{name}_in", name, created=NOW_S - 3))
        folded(envs[0], paid(f"{name}_out", f"{name}_in", f"{name}_elsewhere", created=NOW_S - 6))
        for limit in (1, 2):
            orders = [each["order_id"] for each in listed(env, f"limit={limit}&since={NOW_S - 60}")]
            assert orders.count(name) == 1

    def test_what_changed_since_a_time(self, envs, env):
        name = f"since_{env['LEDGER_WEB_PORT']}"
        folded(envs[0], paid(f"{name}_old", f"{name}_old", f"{name}_old"))
        since = get(env, f"/orders/{name}_old") and time.time()
        folded(envs[0], paid(name, name, name))
        names = [each["order_id"] for each in listed(env, f"since={since:.3f}")]
        assert name in names
        assert f"{name}_old" not in names

    @pytest.mark.parametrize(
        ("query", "field"),
        [
            ("status=great", "status"),
            ("anomaly=none", "anomaly"),
            ("since=yesterday", "since"),
            ("limit=0", "limit"),
            ("limit=201", "limit"),
            ("limit=0000001009", "limit"),
            ("cursor=AAAA", "cursor"),
            ("cursor=%FF", "cursor"),
            ("anomaly=any&cursor=AAAA", "cursor"),
            ("scope=mine", "scope"),
        ],
    )
    def test_a_parameter_that_is_wrong_is_named(self, env, query, field):
        answer = ask(env, f"/orders?{query}")
        assert_problem(answer, 400, "invalid_parameter")
        assert answer.json["field"] == field

    def test_a_cursor_beyond_the_end_begins_there(self, env):
        beyond = parameters.written_cursor([(10**9, 10**9)] * PARTITIONS)
        assert get(env, f"/orders?cursor={beyond}")["orders"] == get(env, "/orders")["orders"]

    def test_a_worker_s_part_alone_is_for_lists_by_anomaly(self, envs, env):
        parts = [get(each, "/orders?scope=worker&anomaly=any")["partitions"] for each in envs]
        assert sorted(chain.from_iterable(parts)) == list(range(PARTITIONS))
        assert "partitions" not in get(env, "/orders?anomaly=any")
        answer = ask(env, "/orders?scope=worker")
        assert_problem(answer, 400, "invalid_parameter")
        assert answer.json["field"] == "scope"

    def test_what_is_rejected_between_two_pages_shifts_none(self, envs, env):
        prefix = f"shift_{env['LEDGER_WEB_PORT']}_"
        for number in range(5):
            folded(envs[0], event(f"{prefix}{number}", "payment.succeeded", "pay", -1))
        found, cursor = [], ""
        while cursor is not None:
            page = get(env, f"/rejected?limit=2&cursor={cursor}")
            found += [item["event_id"] for item in page["items"]]
            cursor = page["cursor"]
            folded(envs[0], event(f"{prefix}new{len(found)}", "payment.succeeded", "pay", -1))
        assert len(found) == len(set(found))
        assert [name for name in found if name.startswith(prefix)] == [
            f"{prefix}{number}" for number in (4, 3, 2, 1, 0)
        ]

    def test_what_was_rejected_is_listed_with_its_reason(self, envs, env):
        name = f"bad_{env['LEDGER_WEB_PORT']}"
        folded(envs[0], event(name, "payment.succeeded", name, -1))
        page = get(env, "/rejected?reason=amount_negative&limit=200")
        found = next(item for item in page["items"] if item["event_id"] == name)
        assert (found["state"], found["reason"]) == ("open", "amount_negative")
        assert found["source"].startswith(names_of(env).webhooks)
        assert page["counts"]["amount_negative"] >= 1
        one = get(env, "/rejected?limit=1")
        assert len(one["items"]) == 1


class TestBalances:
    def test_balances_are_those_of_all_orders_and_sum_to_zero(self, envs, env):
        folded(envs[0], paid("evt_usd", "pay_usd", "ord_usd", 12_345, currency="USD"))

        def balanced() -> bool:
            return ask(env, "/balances").status == 200

        until(balanced, within_s=30, what="balances")
        document = get(env, "/balances?days=true")
        assert document["partitions"] == list(range(PARTITIONS))
        sums: dict[str, int] = {}
        for balance in document["balances"]:
            sums[balance["currency"]] = sums.get(balance["currency"], 0) + balance["amount"]
        assert set(sums.values()) == {0}
        assert sums.keys() >= {"KZT", "USD"}
        held = {
            each["currency"]: each["amount"]
            for each in document["balances"]
            if each["account"] == "assets:plexy"
        }
        net: dict[str, int] = {}
        for order in listed(env, "limit=200"):
            for currency, total in order["totals"].items():
                net[currency] = net.get(currency, 0) + total["net"]
        assert held == net
        days: dict[tuple[str, str], int] = {}
        for posted in document["days"]:
            key = posted["account"], posted["currency"]
            days[key] = days.get(key, 0) + posted["amount"]
        assert days == {(b["account"], b["currency"]): b["amount"] for b in document["balances"]}

    def test_an_event_of_a_far_off_time_is_summed_too(self, envs, env):
        """As where a sender gives milliseconds for seconds."""
        name = f"far_{env['LEDGER_WEB_PORT']}"
        folded(envs[0], paid(name, name, name, 3, created=NOW_S * 1000, currency="CHF"))
        for path in ("/balances?days=true", "/balances?scope=worker", "/balances"):
            until(lambda path=path: ask(env, path).status == 200, within_s=30, what=path)
        days = [
            each for each in get(env, "/balances?days=true")["days"] if each["currency"] == "CHF"
        ]
        assert {(each["day"], each["number"]) for each in days} == {
            ("9999-12-31", NOW_S * 1000 // 86_400)
        }

    def test_after_a_restart_the_sums_are_the_same(self, kafka, tmp_path):
        env = environment(kafka.bootstrap, tmp_path, api_token=TOKEN)
        bodies = [paid(f"evt_{n}", f"pay_{n}", f"ord_{n}", n) for n in range(500)]
        with WorkerProcess(env) as worker:
            worker.wait_ready(60)
            folded(env, *bodies, refunded("evt_r", "re", "pay_499", 99))
            before = get(env, "/balances?days=true")
        with WorkerProcess(env) as worker:
            worker.wait_ready(60)
            until(lambda: ask(env, "/balances").status == 200, within_s=30, what="balances")
            assert get(env, "/balances?days=true") == before
        assert {b["account"]: b["amount"] for b in before["balances"]} == {
            "assets:plexy": sum(range(500)) - 99,
            "income:sales": -sum(range(500)),
            "income:refunds": 99,
        }
