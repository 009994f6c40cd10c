"""The load in flight is bounded by the number of deliveries, and by the bytes that have arrived."""

from hypothesis import given
from hypothesis import strategies as st

from ingest.load import MAX_BYTES_IN_FLIGHT, SMALL_BYTES, BodyMemory, Deliveries

KIB = 1024


def test_the_number_of_deliveries_is_bounded():
    deliveries = Deliveries(most=2)
    assert [deliveries.admit() for _ in range(3)] == [True, True, False]
    deliveries.release()
    assert deliveries.admit()


def test_the_bytes_of_large_bodies_are_bounded():
    memory = BodyMemory(max_bytes=100 * KIB)
    assert memory.grow(0, 80 * KIB)
    assert not memory.grow(0, 30 * KIB)
    assert memory.grow(0, 20 * KIB)
    memory.release(80 * KIB)
    assert memory.grow(0, 30 * KIB)


def test_a_small_body_finds_room_when_memory_is_full():
    memory = BodyMemory(max_bytes=100 * KIB)
    assert memory.grow(0, 100 * KIB)
    assert memory.grow(0, SMALL_BYTES)
    assert not memory.grow(SMALL_BYTES, SMALL_BYTES + 1)


def test_the_largest_body_always_finds_room_in_an_idle_ingress():
    assert BodyMemory().grow(0, 8 * 2**20)
    assert MAX_BYTES_IN_FLIGHT >= 8 * 8 * 2**20


@given(st.lists(st.lists(st.integers(0, 20 * KIB), max_size=6)))
def test_no_bytes_are_counted_after_all_bodies_are_released(bodies):
    memory = BodyMemory(max_bytes=50 * KIB)
    sizes = []
    for chunks in bodies:
        size = 0
        for chunk in chunks:
            if memory.grow(size, size + chunk):
                size += chunk
        sizes.append(size)
    for size in sizes:
        memory.release(size)
    assert memory.grow(0, 50 * KIB)
    assert not memory.grow(0, 17 * KIB)
