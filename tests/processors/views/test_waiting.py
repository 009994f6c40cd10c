"""A wait for an event keeps its time limit, however slow the search for the event is."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from processors.engine.watchers import Watchers
from processors.views import waiting
from processors.views.answers import ProblemError
from processors.views.waiting import MOST_WAITERS, until_folded


@pytest.fixture
def app() -> Any:
    tables = {name: SimpleNamespace(watchers=Watchers()) for name in ("orders", "payments")}
    return SimpleNamespace(chunk_tables=tables)


async def wait(app: Any, table: Any = "orders", wait: str = "100ms") -> Any:
    request = SimpleNamespace(query={"event": "evt_1", "wait": wait})
    async with asyncio.timeout(10):
        return await until_folded(app, request, table, "ord_1", lambda: None)


async def test_a_search_that_takes_too_long_is_cancelled(app, monkeypatch):
    async def never(_app: Any, _event_id: str) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(waiting, "any_story", never)
    monkeypatch.setattr(waiting, "READ_WITHIN_S", 0.1)
    with pytest.raises(ProblemError, match="progress is unknown, because Kafka or") as raised:
        await wait(app)
    assert raised.value.problem.code == "event_not_folded"


async def test_no_further_search_starts_once_the_time_limit_has_passed(app, monkeypatch):
    searches = 0

    async def slow(_app: Any, _event_id: str) -> None:
        nonlocal searches
        searches += 1
        await asyncio.sleep(0.2)

    monkeypatch.setattr(waiting, "any_story", slow)
    monkeypatch.setattr(waiting, "_LOOK_AFTER_S", 0.01)
    with pytest.raises(ProblemError, match="it is not in the log"):
        await wait(app)
    assert searches == 1


async def test_waiters_for_orders_do_not_block_waiters_for_payments(app, monkeypatch):
    async def nowhere(_app: Any, _event_id: str) -> None:
        return None

    monkeypatch.setattr(waiting, "any_story", nowhere)
    waiters = [asyncio.create_task(wait(app, wait="20s")) for _ in range(MOST_WAITERS)]
    await asyncio.sleep(0)
    with pytest.raises(ProblemError, match=f"{MOST_WAITERS} requests already wait for events of"):
        await wait(app)
    with pytest.raises(ProblemError) as raised:
        await wait(app, "payments", "0s")
    assert raised.value.problem.code == "event_not_folded"
    for each in waiters:
        each.cancel()
    await asyncio.wait(waiters)
