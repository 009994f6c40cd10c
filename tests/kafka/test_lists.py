"""Lists of orders, and of what was rejected, over all workers."""

import base64
import time

import msgspec
import pytest

from tests.kafka.answers import deliver, event, folded, get, listed, paid, refunded
from tests.kafka.harness import PARTITIONS, names_of, wait_folded
from tests.kafka.test_views import ask, assert_problem

pytestmark = pytest.mark.timeout(240)


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
        assert name in [each["order_id"] for each in orders]
        assert all("refund_without_payment" in each["anomalies"] for each in orders)
        assert name in [each["order_id"] for each in listed(env, "anomaly=any")]
        folded(envs[0], paid(f"evt_p_{name}", name, name))
        orders = listed(env, "anomaly=refund_without_payment")
        assert name not in [each["order_id"] for each in orders]

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
        ],
    )
    def test_a_parameter_that_is_wrong_is_named(self, env, query, field):
        answer = ask(env, f"/orders?{query}")
        assert_problem(answer, 400, "invalid_parameter")
        assert answer.json["field"] == field

    def test_a_cursor_beyond_the_end_begins_there(self, env):
        beyond = base64.urlsafe_b64encode(msgspec.msgpack.encode([10**9] * PARTITIONS)).decode()
        assert (
            get(env, f"/orders?cursor={beyond.rstrip('=')}")["orders"]
            == get(env, "/orders")["orders"]
        )

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
