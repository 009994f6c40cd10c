"""`GET /balances` adds up the sums of all workers."""

import pytest

from tests.kafka.answers import NOW_S, TOKEN, ask, folded, get, listed, paid, refunded
from tests.kafka.harness import PARTITIONS, WorkerProcess, environment, until

pytestmark = pytest.mark.timeout(240)


class TestBalances:
    def test_the_balances_match_the_totals_of_all_orders_and_sum_to_zero(self, envs, env):
        folded(
            envs[0],
            paid("evt_usd", "pay_usd", "ord_usd", 12_345, currency="USD"),
            paid("evt_kzt", "pay_kzt", "ord_kzt"),
        )

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

    def test_an_event_dated_in_the_far_future_is_summed_on_the_day_of_its_arrival(self, envs, env):
        name = f"far_{env['LEDGER_WEB_PORT']}"
        folded(envs[0], paid(name, name, name, 3, created=NOW_S * 10, currency="CHF"))
        for path in ("/balances?days=true", "/balances?scope=worker", "/balances"):
            until(lambda path=path: ask(env, path).status == 200, within_s=30, what=path)
        days = [
            each for each in get(env, "/balances?days=true")["days"] if each["currency"] == "CHF"
        ]
        assert {each["number"] for each in days} <= {NOW_S // 86_400, NOW_S // 86_400 + 1}
        assert days

    def test_the_balances_are_the_same_after_a_restart(self, kafka, tmp_path):
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
