"""Lists of orders and of rejections have the data of all workers."""

import time
from itertools import chain

import pytest

from processors.views import parameters
from runtime.kafka.batches import OutRecord
from tests.kafka.answers import (
    NOW_S,
    ask,
    assert_problem,
    deliver,
    event,
    folded,
    get,
    listed,
    paid,
    refunded,
)
from tests.kafka.harness import PARTITIONS, names_of, read_topic, wait_folded, write

pytestmark = pytest.mark.timeout(240)


class TestLists:
    def test_each_order_is_listed_once_in_its_current_state_and_the_latest_change_comes_first(
        self, envs, env
    ):
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

    def test_orders_with_an_anomaly_are_found_by_the_name_of_the_anomaly(self, envs, env):
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

    def test_a_list_by_anomaly_has_the_latest_event_first_and_each_item_once_despite_changes(
        self, envs, env
    ):
        prefix = f"old_{env['LEDGER_WEB_PORT']}_"
        # All events are old, and the latest event is delivered first.
        orders = [f"{prefix}{number:02}" for number in range(12)]
        for number, name in enumerate(orders):
            at = (20_000 - number) * 86_400
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
                # An order that was already listed moves to the front.
                more = event(
                    f"{prefix}more", "refund.succeeded", "more", 1, created=int(time.time())
                )
                more["data"]["payment_id"] = found[0]
                folded(envs[0], more)
                has_changed = True
        assert found == orders
        assert listed(env, "anomaly=any")[0]["order_id"] == orders[0]
        since = 19_992 * 86_400
        ids = [each["order_id"] for each in listed(env, f"anomaly=any&since={since}")]
        assert [name for name in ids if name in orders] == orders[:9]
        assert listed(env, f"anomaly=any&since={since}&status=failed") == []

    def test_an_order_that_is_published_again_is_listed_once(self, envs, env):
        """After a crash, a worker publishes the outputs of a chunk again."""
        prefix = f"twice_{env['LEDGER_WEB_PORT']}_"
        names = [f"{prefix}{number}" for number in range(9)]
        # It takes long to read a list whose pages have one order each. So ``since`` limits the
        # lists to orders that change from now on.
        since = f"since={time.time():.3f}"
        folded(envs[0], *(paid(name, name, name) for name in names))
        topic = names_of(env).orders
        published = [r for r in read_topic(env, topic) if r.key.decode().startswith(prefix)]
        write(env, topic, [OutRecord(r.key, r.value) for r in published])
        for limit in (1, 2, 5):
            orders = [each["order_id"] for each in listed(env, f"limit={limit}&{since}")]
            assert sorted(name for name in orders if name in names) == names

    def test_an_order_that_returns_to_an_earlier_state_is_listed_once(self, envs, env):
        name = f"again_{env['LEDGER_WEB_PORT']}"
        since = f"since={time.time():.3f}"
        folded(envs[0], paid(name, name, name))
        folded(envs[0], paid(f"{name}_next", f"{name}_next", f"{name}_next"))
        folded(envs[0], paid(f"{name}_in", f"{name}_in", name, created=NOW_S - 3))
        folded(envs[0], paid(f"{name}_out", f"{name}_in", f"{name}_elsewhere", created=NOW_S - 6))
        for limit in (1, 2):
            orders = [each["order_id"] for each in listed(env, f"limit={limit}&{since}")]
            assert orders.count(name) == 1

    def test_a_list_since_a_time_has_only_the_orders_that_changed_later(self, envs, env):
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
    def test_the_error_names_the_wrong_parameter(self, env, query, field):
        answer = ask(env, f"/orders?{query}")
        assert_problem(answer, 400, "invalid_parameter")
        assert answer.json["field"] == field

    def test_a_cursor_beyond_the_end_of_the_topic_gives_the_first_page(self, env):
        beyond = parameters.written_cursor([(10**9, 10**9)] * PARTITIONS)
        assert get(env, f"/orders?cursor={beyond}")["orders"] == get(env, "/orders")["orders"]

    def test_only_a_list_by_anomaly_can_be_limited_to_one_worker(self, envs, env):
        parts = [get(each, "/orders?scope=worker&anomaly=any")["partitions"] for each in envs]
        assert sorted(chain.from_iterable(parts)) == list(range(PARTITIONS))
        assert "partitions" not in get(env, "/orders?anomaly=any")
        answer = ask(env, "/orders?scope=worker")
        assert_problem(answer, 400, "invalid_parameter")
        assert answer.json["field"] == "scope"

    def test_if_a_rejection_arrives_between_two_pages_the_pages_still_have_each_item_once(
        self, envs, env
    ):
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

    def test_a_rejection_is_listed_with_its_reason(self, envs, env):
        name = f"bad_{env['LEDGER_WEB_PORT']}"
        folded(envs[0], event(name, "payment.succeeded", name, -1))
        page = get(env, "/rejected?reason=amount_negative&limit=200")
        found = next(item for item in page["items"] if item["event_id"] == name)
        assert (found["state"], found["reason"]) == ("open", "amount_negative")
        assert found["source"].startswith(names_of(env).webhooks)
        assert page["counts"]["amount_negative"] >= 1
        one = get(env, "/rejected?limit=1")
        assert len(one["items"]) == 1
