"""Pages out of several workers' lists: whatever each has searched, nothing is lost or repeated."""

from hypothesis import given
from hypothesis import strategies as st

from processors.anomalies import key_of
from processors.views import parameters
from processors.views.by_anomaly import merged
from processors.views.listed import ListedOrder, OrderList

Orders = dict[str, int]


def listed(order_id: str, last_event: int) -> ListedOrder:
    return ListedOrder(order_id, "paid", 1, {}, ("any",), 1, 0, last_event, None, None)


def part(orders: Orders, cursor: str | None, limit: int, most_searched: int) -> OrderList:
    """Return a page of one worker: it lists every order but those with an odd time."""
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
def test_all_pages_together_are_all_orders_in_their_sequence(drawn, limit, most_searched):
    # An order is of one worker.
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
