"""In a rebalance, a worker keeps the sums of partitions that stay with it; all sums stay right."""

import contextlib
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from cli.kafka.broker import EmbeddedKafka
from tests.kafka.answers import TOKEN, ask, deliver, folded, get, listed, paid, refunded
from tests.kafka.harness import (
    PARTITIONS,
    WorkerProcess,
    environment,
    second_of,
    two_workers,
    until,
    wait_folded,
)

pytestmark = pytest.mark.timeout(240)


def summed(worker: WorkerProcess) -> Counter[tuple[str, int]]:
    """Return how often a worker has summed each partition of each table."""
    return Counter((line["table"], line["partition"]) for line in worker.logged("summed"))


def whole(env: Mapping[str, str], workers: int) -> Any:
    """Wait until ``workers`` workers have partitions and have summed them; return the overview."""

    def settled() -> Any:
        found = get(env, "/overview")
        shares = [worker["partitions"] for worker in found["workers"]]
        is_shared = len(shares) == workers and all(shares) and found["ready"]
        return found if is_shared and found["totals"] and found["anomalies"] else None

    return until(settled, within_s=90, what=f"{workers} workers at work")


def test_only_partitions_that_return_to_a_worker_are_summed_again(
    kafka: EmbeddedKafka, tmp_path_factory: pytest.TempPathFactory
) -> None:
    one = environment(
        kafka.bootstrap, tmp_path_factory.mktemp("sums"), api_token=TOKEN, log_level="debug"
    )
    other = second_of(one, tmp_path_factory.mktemp("other"))
    second = WorkerProcess(other)
    with WorkerProcess(one) as first, contextlib.ExitStack() as stack:
        first.wait_ready(90)
        folded(one, *(paid(f"e{n}", f"p{n}", f"o{n}", 10) for n in range(40)))
        folded(one, *(refunded(f"r{n}", f"r{n}", f"p{n}", 11) for n in range(20)))
        whole(one, 1)
        everything = {(name, p) for name in ("payments", "orders") for p in range(PARTITIONS)}
        assert summed(first) == dict.fromkeys(everything, 1)

        stack.enter_context(second)
        second.wait_ready(90)
        shared = {w["address"]: w["partitions"] for w in whole(one, 2)["workers"]}
        kept = shared[f"http://127.0.0.1:{one['LEDGER_WEB_PORT']}"]
        assert 0 < len(kept) < PARTITIONS
        assert summed(first) == dict.fromkeys(everything, 1)
        # Both workers change the sums of their partitions.
        folded(one, *(paid(f"f{n}", f"q{n}", f"o{n}", 5) for n in range(40)))
        folded(one, *(refunded(f"s{n}", f"s{n}", f"q{n}", 6) for n in range(20, 40)))

        second.stop(30)
        found = whole(one, 1)
        assert summed(first) == {(name, p): 1 if p in kept else 2 for name, p in everything}
        assert found["totals"] == {"KZT": {"paid": 600, "refunded": 340, "net": 260}}
        assert found["anomalies"] == {"any": 40, "refund_exceeds_payment": 40}
        assert len(listed(one, "anomaly=refund_exceeds_payment&limit=7")) == 40
        assert ask(one, "/balances").status == 200
        balances = {b["account"]: b["amount"] for b in get(one, "/balances")["balances"]}
        assert balances["assets:plexy"] == 260


def test_sums_are_right_after_a_worker_was_killed_repeatedly_under_load(
    kafka: EmbeddedKafka, tmp_path_factory: pytest.TempPathFactory
) -> None:
    one = environment(
        kafka.bootstrap, tmp_path_factory.mktemp("stays"), api_token=TOKEN, chunk_records=20
    )
    other = second_of(one, tmp_path_factory.mktemp("killed"))
    with WorkerProcess(one) as first:
        first.wait_ready(90)
        for turn in range(3):
            with WorkerProcess(other) as second:
                second.wait_ready(90)
                names = [f"{turn}_{n}" for n in range(400)]
                deliver(one, *(paid(f"e{name}", f"p{name}", f"o{name}", 10) for name in names))
                late = [refunded(f"r{name}", f"r{name}", f"p{name}", 11) for name in names]
                deliver(one, *late[:200])
                # The kill interrupts chunks that may have published outputs already. The first
                # worker folds these chunks again.
                assert second.process
                second.process.kill()
                second.process.wait()
            deliver(one, *late[200:])
        wait_folded(one, first, within_s=90)
        found = whole(one, 1)
        assert found["totals"] == {"KZT": {"paid": 12_000, "refunded": 13_200, "net": -1_200}}
        assert found["anomalies"] == {"any": 1200, "refund_exceeds_payment": 1200}
        assert len({each["order_id"] for each in listed(one, "anomaly=any&limit=200")}) == 1200


def test_the_overview_shows_a_worker_that_has_only_standbys(
    kafka: EmbeddedKafka, tmp_path_factory: pytest.TempPathFactory
) -> None:
    one = environment(
        kafka.bootstrap, tmp_path_factory.mktemp("active"), api_token=TOKEN, partitions=1
    )
    with two_workers(one, tmp_path_factory.mktemp("standby")) as (_, second):
        other = second.env

        def shares(env: Mapping[str, str]) -> list[tuple[list[int], list[int]]]:
            workers = get(env, "/overview")["workers"]
            return sorted((worker["partitions"], worker["standbys"]) for worker in workers)

        for env in (one, other):
            until(
                lambda env=env: shares(env) == [([], [0]), ([0], [])],
                within_s=60,
                what="both workers",
            )
        until(lambda: ask(other, "/balances").status == 200, within_s=30, what="balances")
        assert get(other, "/orders?anomaly=any") == {"orders": [], "cursor": None}
