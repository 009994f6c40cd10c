"""Two states of one key join to what either holds, so that an older one never hides a newer one."""

from hypothesis import given
from hypothesis import strategies as st

from ledger.deduplication import Seen
from ledger.joins import JOINS
from ledger.wire import ORDERS, PAYMENTS, SEEN
from tests.ledger.pipeline import Pipeline
from tests.strategies import histories


def tables_after(history):
    """Return the tables' values, as bytes, after a run of events."""
    pipeline = Pipeline()
    pipeline.fold([[event] for event in history])
    payments = {key: PAYMENTS.encode(value) for key, value in pipeline.payments.items()}
    orders = {key: ORDERS.encode(value) for key, value in pipeline.orders.items()}
    return {"payments": payments, "orders": orders}


@given(histories(), st.data())
def test_an_older_state_joins_to_the_newer_one_from_either_side(history, data):
    """What a worker wrote that had lost its partition is a state that the next owner had too."""
    older = tables_after(history[: data.draw(st.integers(0, len(history)))])
    newer = tables_after(history)
    for table, values in newer.items():
        join = JOINS[table]
        for key, value in values.items():
            before = older[table].get(key, value)
            assert join(before, value) == value
            assert join(value, before) == value


@given(st.integers(0, 9), st.integers(0, 9))
def test_of_two_sightings_of_an_event_the_first_in_the_log_stays(one, other):
    sightings = [SEEN.encode(Seen(b"x" * 16, offset, 7)) for offset in (one, other)]
    assert SEEN.decode(JOINS["seen"](*sightings)).offset == min(one, other)
