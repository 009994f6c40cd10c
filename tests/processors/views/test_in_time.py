"""An answer keeps its time limit, however many reads and requests it needs."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from ledger.orders import Order
from ledger.payments import Snapshot
from ledger.records import SignedRecord
from processors.views import by_change, orders, state
from processors.views.listed import Filter
from processors.views.stories import story_of
from runtime.kafka import topic_reader
from runtime.kafka.topic_reader import LogUnreadableError

ONE_S = 0.06
PARTITIONS = 8


class SlowReader:
    """A reader that answers each single request slowly, but within the time limit."""

    async def begins(self, _topic: str, partitions: int) -> dict[int, int]:
        await asyncio.sleep(ONE_S)
        return dict.fromkeys(range(partitions), 0)

    async def ends(self, _topic: str, partitions: int) -> dict[int, int]:
        await asyncio.sleep(ONE_S)
        return dict.fromkeys(range(partitions), 7)

    async def between(self, *_window: Any) -> list[SignedRecord]:
        await asyncio.sleep(ONE_S)
        return []


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(topic_reader, "READ_WITHIN_S", 1.5 * ONE_S)
    return SimpleNamespace(
        reader=SlowReader(),
        names=SimpleNamespace(orders="ledger.orders", webhooks="plexy.webhooks"),
        settings=SimpleNamespace(partitions=PARTITIONS, chunk_records=100),
    )


async def test_a_request_for_a_page_of_orders_fails_at_the_time_limit_if_the_reader_is_slow(app):
    request = SimpleNamespace(query={})
    with pytest.raises(LogUnreadableError, match="a page of the orders: not read within"):
        await by_change.page(app, request, Filter(None, None, 0))


async def test_a_request_for_an_events_deliveries_fails_at_the_time_limit_if_the_reader_is_slow(
    app, monkeypatch
):
    async def nowhere(_app: Any, _event_id: str) -> None:
        return None

    monkeypatch.setattr(state, "any_event", nowhere)
    monkeypatch.setattr(state, "judged_to", lambda _app, _partition: 0)
    with pytest.raises(LogUnreadableError, match="the deliveries of event 'evt_1': not read"):
        await story_of(app, "evt_1")


@pytest.mark.parametrize("answer", [orders._deliveries, orders._as_of])
async def test_a_request_for_an_orders_deliveries_fails_at_the_time_limit_if_workers_are_slow(
    app, monkeypatch, answer
):
    async def slow(_app: Any, _payment_id: str) -> None:
        await asyncio.sleep(ONE_S)

    left = {
        str(n): Snapshot(order_id="ord_1", payment_id=str(n), version=0, payment=None)
        for n in range(200)
    }
    monkeypatch.setattr(state, "any_payment", slow)
    monkeypatch.setattr(state, "existing_order", lambda _app, name: Order(name, left))
    more = (0,) if answer is orders._as_of else ()
    with pytest.raises(LogUnreadableError, match="the deliveries of order 'ord_1': not read"):
        await answer(app, "ord_1", *more)
