"""Merged pages of workers' lists neither lose nor repeat an order, however far workers search."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st

from ledger.anomalies import key_of
from ledger.wire import ORDERS
from processors.settings import WorkerSettings
from processors.topology import LedgerApp
from processors.views import by_anomaly, parameters
from processors.views.answers import ProblemError
from processors.views.by_anomaly import merged, page_here
from processors.views.listed import ListedOrder, OrderList, wanted
from processors.worker import create_app
from runtime.kafka.partitions import partition_for
from tests.ledger.examples import refund, success
from tests.ledger.pipeline import Pipeline
from tests.rows import write_rows

Orders = dict[str, int]


def listed(order_id: str, last_event: int) -> ListedOrder:
    return ListedOrder(order_id, "paid", 1, {}, ("any",), 1, 0, last_event, None, None)


def part(orders: Orders, cursor: str | None, limit: int, most_searched: int) -> OrderList:
    """Return one worker's page, which lists only orders whose last event has an even time."""
    end = parameters.read_cursor(cursor, bytes) if cursor else None
    found: list[ListedOrder] = []
    keys = sorted(((key_of(at, name), name) for name, at in orders.items()), reverse=True)
    below = [pair for pair in keys if end is None or pair[0] < end]
    for searched, (key, name) in enumerate(below):
        if len(found) == limit or searched == most_searched:
            return OrderList(found, parameters.written_cursor(end))
        end = key
        if orders[name] % 2 == 0:
            found.append(listed(name, orders[name]))
    return OrderList(found, None)


@given(
    st.lists(st.dictionaries(st.text(max_size=3), st.integers(0, 8), max_size=8), max_size=4),
    st.integers(1, 4),
    st.integers(1, 4),
)
def test_all_pages_together_list_all_orders_in_sequence(drawn, limit, most_searched):
    # Each order belongs to one worker.
    workers = [{f"{n}{name}": at for name, at in each.items()} for n, each in enumerate(drawn)]
    seen: list[ListedOrder] = []
    cursor, pages = None, 0
    while cursor is not None or not pages:
        page = merged([part(each, cursor, limit, most_searched) for each in workers], limit)
        assert len(page.orders) <= limit
        seen += page.orders
        cursor, pages = page.cursor, pages + 1
        assert pages <= 100
    wanted = [(at, name) for each in workers for name, at in each.items() if at % 2 == 0]
    assert [(each.last_event, each.order_id) for each in seen] == sorted(
        wanted, key=lambda pair: key_of(*pair), reverse=True
    )


PARTITIONS = 2


@pytest.fixture
def app(tmp_path: Path) -> LedgerApp:
    """Return the app of a worker that has twelve orders; every second order is over-refunded.

    All orders have anomalies, and the first order has the latest event. The worker was never
    started, but is marked as ready.
    """
    made = create_app(WorkerSettings(data_dir=tmp_path, partitions=PARTITIONS))
    table = made.chunk_tables["orders"]
    made.assignor._active_tps = {TP(table.changelog_name, p) for p in range(PARTITIONS)}
    made.tables.actives_ready = True
    made.consumer = SimpleNamespace(is_surely_member=True, refolding=lambda: None)
    pipeline = Pipeline()
    for n in range(12):
        about = {"payment": f"ord_{n:02}"}
        odd = refund(f"evt_{n}", 100 - n, 9, refund_id=f"re_{n}", **about)
        even = success(f"evt_{n}", 100 - n, 6, **about)
        pipeline.fold([[success(f"evt_p{n}", 1, 5, **about), odd if n % 2 else even]])
    for name, order in pipeline.orders.items():
        partition = partition_for(name.encode(), PARTITIONS)
        write_rows(table, partition, {name.encode(): ORDERS.encode(order)})
    return made


def page(app: LedgerApp, **query: Any) -> OrderList:
    request = SimpleNamespace(query={name: str(value) for name, value in query.items()})
    return page_here(app, request, wanted(request))


async def test_a_worker_searches_a_bounded_number_of_orders_for_each_page(app, monkeypatch):
    monkeypatch.setattr(by_anomaly, "_MOST_SEARCHED", 1)
    await app.anomalies.look()
    pages: list[list[str]] = []
    cursor: str | None = ""
    while cursor is not None:
        answer = page(app, anomaly="any", status="over_refunded", limit=3, cursor=cursor)
        pages.append([each.order_id for each in answer.orders])
        cursor = answer.cursor
    assert pages == [[f"ord_{n:02}"] if n % 2 else [] for n in range(12)]


async def test_a_worker_lists_all_its_orders_with_its_partitions(app):
    await app.anomalies.look()
    answer = page(app, anomaly="any")
    assert [each.order_id for each in answer.orders] == [f"ord_{n:02}" for n in range(12)]
    assert (answer.cursor, answer.partitions) == (None, [0, 1])
    assert len(page(app, anomaly="conflicting_amount").orders) == 6
    assert len(page(app, anomaly="any", since=95).orders) == 6


async def test_a_worker_that_is_still_reading_its_orders_answers_503_with_that_reason(app):
    with pytest.raises(ProblemError) as raised:
        page(app, anomaly="any")
    assert (raised.value.problem.status, raised.value.problem.code) == (503, "being_summed")
