"""The view of an order's deliveries reads a limited number of payments, events and log records."""

import asyncio
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest

from ledger.orders import Order
from ledger.payments import Snapshot
from processors.views import deliveries, state
from processors.views.answers import ProblemError
from processors.views.deliveries import MOST_DELIVERIES, of_order


class Workers:
    """Stands for all workers; each payment has one event, whose offset is the payment's id."""

    def __init__(self, repeats: int = 0) -> None:
        self.asked = self.at_a_time = self.most_at_a_time = 0
        self.repeats = repeats
        self.version = 1
        self.anomalies: tuple[str, ...] = ()
        self.places: set[tuple[int, int]] = set()
        self.app: Any = SimpleNamespace(reader=self, names=SimpleNamespace(webhooks="log"))

    async def payment(self, _app: Any, payment_id: str) -> Any:
        self.asked += 1
        self.at_a_time += 1
        self.most_at_a_time = max(self.most_at_a_time, self.at_a_time)
        await asyncio.sleep(0)
        self.at_a_time -= 1
        if not payment_id.isdigit():
            return None
        return SimpleNamespace(
            version=self.version,
            anomalies=self.anomalies,
            events=[SimpleNamespace(event_id=payment_id, partition=0, offset=int(payment_id))],
            notes=(),
        )

    async def event(self, _app: Any, event_id: str) -> Any:
        again = tuple(int(event_id) + 10_000 * (n + 1) for n in range(self.repeats))
        return state.EventPlaces(0, int(event_id), again)

    async def at(self, _topic: str, places: Iterable[tuple[int, int]]) -> Any:
        self.places = set(places)
        return []


@pytest.fixture
def workers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Workers:
    made = Workers(getattr(request, "param", 0))
    monkeypatch.setattr(state, "any_payment", made.payment)
    monkeypatch.setattr(state, "any_event", made.event)
    return made


def left_by(payments: int) -> Order:
    """Return an order that the given number of payments have left."""
    snapshots = {
        str(n): Snapshot(order_id="ord_1", payment_id=str(n), version=1, payment=None)
        for n in range(payments)
    }
    return Order("ord_1", snapshots)


async def test_payments_that_left_an_order_are_requested_in_parallel_but_not_all_at_once(workers):
    await of_order(workers.app, left_by(300))
    assert workers.asked == 301
    assert workers.most_at_a_time == deliveries._AT_A_TIME
    assert workers.places == {(0, n) for n in range(300)}


@pytest.mark.parametrize("name", ["0", "pay_1"], ids=["as it was before", "not there"])
async def test_a_payment_that_left_the_order_but_whose_new_state_is_missing_causes_a_503(
    workers, name
):
    left = Snapshot(order_id="ord_1", payment_id=name, version=2, payment=None)
    with pytest.raises(ProblemError, match=f"payment '{name}' has left") as raised:
        await of_order(workers.app, Order("ord_1", {name: left}))
    assert (raised.value.problem.status, raised.value.problem.code) == (503, "changing")
    assert workers.places == set()
    workers.version = 2
    if name == "0":
        await of_order(workers.app, Order("ord_1", {name: left}))
        assert workers.places == {(0, 0)}


async def test_the_first_error_cancels_all_other_requests(workers, monkeypatch):
    never = asyncio.Event()
    asked: list[str] = []

    async def payment(_app: Any, payment_id: str) -> Any:
        asked.append(payment_id)
        if len(asked) == 1:
            await asyncio.sleep(0)
            raise ProblemError(503, "unavailable", "the worker does not answer")
        await never.wait()

    monkeypatch.setattr(state, "any_payment", payment)
    with pytest.raises(ProblemError, match="does not answer"):
        await of_order(workers.app, left_by(300))
    assert len(asked) <= deliveries._AT_A_TIME + 1
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_an_order_of_too_many_payments_is_refused_before_any_worker_is_asked(workers):
    with pytest.raises(ProblemError, match="more than 2000 deliveries"):
        await of_order(workers.app, left_by(MOST_DELIVERIES + 1))
    assert workers.asked == 0


@pytest.mark.parametrize("workers", [64], indirect=True)
async def test_an_order_of_too_many_repeated_deliveries_is_refused_before_the_log_is_read(workers):
    with pytest.raises(ProblemError, match="more than 2000 deliveries"):
        await of_order(workers.app, left_by(40))
    assert workers.places == set()


async def test_an_order_is_too_large_if_a_payment_with_too_many_events_has_left_it(workers):
    """The payment's version may stay lower than the version at which the payment left the order."""
    workers.version, workers.anomalies = 0, ("payment_too_large",)
    with pytest.raises(ProblemError) as raised:
        await of_order(workers.app, left_by(1))
    assert raised.value.problem.code == "order_too_large"
