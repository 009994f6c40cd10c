"""What is in flight is bounded, by number and by bytes."""

from hypothesis import given
from hypothesis import strategies as st

from ingest.load import MAX_BYTES_IN_FLIGHT, Load


def test_the_number_is_bounded():
    load = Load(max_deliveries=2)
    assert [load.admit(1) for _ in range(3)] == [True, True, False]
    load.release(1)
    assert load.admit(1)


def test_the_bytes_are_bounded():
    load = Load(max_deliveries=100, max_bytes=10)
    assert load.admit(8)
    assert not load.admit(3)
    assert load.admit(2)
    load.release(8)
    assert load.admit(3)


def test_the_largest_body_always_finds_room_in_an_idle_ingress():
    assert Load(max_deliveries=1).admit(8 * 2**20)
    assert MAX_BYTES_IN_FLIGHT >= 8 * 8 * 2**20


@given(st.lists(st.integers(0, 20)))
def test_what_is_released_leaves_no_trace(sizes):
    load = Load(max_deliveries=5, max_bytes=50)
    for size in [size for size in sizes if load.admit(size)]:
        load.release(size)
    assert [load.admit(10) for _ in range(6)] == [True] * 5 + [False]
