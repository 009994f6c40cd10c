"""A proof shows the current order, which is read again if it changes while the log is read.

If the order contradicts the log, the contradiction is reported.
"""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from ledger.orders import Order, fold_orders
from ledger.payments import fold_payments
from ledger.verification.history import Rules, events_of
from processors.views import orders, state
from processors.views.answers import ProblemError
from runtime.kafka import topic_reader
from runtime.kafka.topic_reader import LogUnreadableError
from tests.ledger.examples import refund, success
from tests.ledger.verification.audited import Log, body_of

EVENTS = [
    success("evt_1", order="ord_1"),
    refund("evt_2", amount=100),
    refund("evt_3", amount=50),
    refund("evt_4", amount=25),
]


def logged(events: int) -> list[Any]:
    log = Log()
    for event in EVENTS[:events]:
        log.append(body_of(event), event.event_id.encode())
    return [record for records in log.partitions.values() for record in records]


def order_after(events: int) -> Order:
    folded = fold_payments(events_of(logged(events), Rules()), {})
    return fold_orders(folded.snapshots, {})["ord_1"]


class Worker:
    """A fake worker; on the n-th read, its order is the fold of ``rests_on[n]`` events."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, rests_on: list[int], in_log: int) -> None:
        self.read: list[int] = []
        self.folded_to = 7

        def order(_app: Any, _order_id: str) -> Order:
            number = rests_on[min(len(self.read), len(rests_on) - 1)]
            self.read.append(number)
            return order_after(number)

        async def of_order(_app: Any, _order: Order) -> Any:
            return logged(in_log)

        monkeypatch.setattr(state, "existing_order", order)
        monkeypatch.setattr(state, "require_ready", lambda _app: None)
        monkeypatch.setattr(orders, "of_order", of_order)
        monkeypatch.setattr(orders, "rules_of", lambda _app: Rules())
        self.app: Any = SimpleNamespace(
            settings=SimpleNamespace(trust=None, partitions=1),
            names=SimpleNamespace(payments="ledger.payments"),
            reader=self,
            consumer=SimpleNamespace(folded=lambda _tp: self.folded_to),
        )

    async def ends(self, _topic: str, _partitions: int) -> dict[int, int]:
        return {0: 7}


async def test_an_order_that_changed_while_the_log_was_read_is_read_again(monkeypatch):
    worker = Worker(monkeypatch, [1, 2], in_log=2)
    proof = await orders.proof_of(worker.app, "ord_1")
    assert proof.order
    assert proof.order.totals["KZT"].refunded == 100
    assert worker.read == [1, 2]


async def test_an_order_that_keeps_changing_causes_a_503(monkeypatch):
    worker = Worker(monkeypatch, [1, 2, 3], in_log=4)
    with pytest.raises(ProblemError) as raised:
        await orders.proof_of(worker.app, "ord_1")
    assert (raised.value.problem.status, raised.value.problem.code) == (503, "changing")
    assert len(worker.read) == orders._TRIES


async def test_an_order_that_lags_behind_its_snapshots_is_not_a_contradiction(monkeypatch):
    monkeypatch.setattr(topic_reader, "READ_WITHIN_S", 0.2)
    worker = Worker(monkeypatch, [1], in_log=2)
    worker.folded_to = 6
    with pytest.raises(ProblemError) as raised:
        await orders.proof_of(worker.app, "ord_1")
    assert raised.value.problem.code == "changing"


async def test_a_log_that_is_not_read_within_the_time_limit_is_reported_as_unread(
    monkeypatch,
):
    monkeypatch.setattr(topic_reader, "READ_WITHIN_S", 0.1)
    worker = Worker(monkeypatch, [1], in_log=1)
    monkeypatch.setattr(orders, "of_order", lambda _app, _order: asyncio.Event().wait())
    with pytest.raises(LogUnreadableError, match="deliveries of order 'ord_1': not read within"):
        await orders.proof_of(worker.app, "ord_1")


async def test_an_up_to_date_order_that_contradicts_the_log_is_reported_with_the_difference(
    monkeypatch,
):
    worker = Worker(monkeypatch, [1], in_log=2)
    with pytest.raises(ProblemError) as raised:
        await orders.proof_of(worker.app, "ord_1")
    problem = raised.value.problem
    assert (problem.status, problem.code) == (500, "contradicts_log")
    assert 'status: got "paid", expected "partially_refunded"' in problem.detail
    assert "payment pay_1" in problem.detail
