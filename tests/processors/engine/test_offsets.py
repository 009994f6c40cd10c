"""The offset that may be committed is correct in whatever sequence the chunks are finished."""

from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st

from processors.engine.offsets import ChunkOffsets

TP0 = TP("t", 0)


@given(st.data())
def test_a_commit_never_passes_a_chunk_that_is_not_done(data: st.DataObject) -> None:
    ends = sorted(data.draw(st.sets(st.integers(1, 1000), min_size=1, max_size=12)))
    offsets = ChunkOffsets()
    for end in ends:
        offsets.delivered(TP0, end)
    done: set[int] = set()
    for end in data.draw(st.permutations(ends)):
        offsets.done(TP0, end)
        done.add(end)
        undone = [each for each in ends if each not in done]
        before = [each for each in ends if each < min(undone)] if undone else ends
        assert offsets.committable(TP0) == (before[-1] if before else None)
        assert offsets.in_flight(TP0) == len(ends) - len(before)


def test_chunks_in_flight_are_forgotten_in_a_rebalance() -> None:
    offsets = ChunkOffsets()
    offsets.delivered(TP0, 10)
    offsets.delivered(TP0, 20)
    offsets.done(TP0, 10)
    offsets.forget()
    assert offsets.committable(TP0) is None
    offsets.done(TP0, 20)
    assert offsets.committable(TP0) is None


def test_the_oldest_record_in_flight_belongs_to_the_first_chunk_that_is_not_done() -> None:
    offsets = ChunkOffsets()
    assert offsets.oldest_ms(TP0) is None
    for end, oldest_ms in ((10, 100), (20, 300), (30, 200)):
        offsets.delivered(TP0, end, oldest_ms)
    offsets.done(TP0, 20)
    assert offsets.oldest_ms(TP0) == 100
    offsets.done(TP0, 10)
    assert offsets.oldest_ms(TP0) == 200
    offsets.done(TP0, 30)
    assert offsets.oldest_ms(TP0) is None
    offsets.delivered(TP0, 40, 400)
    offsets.forget()
    assert offsets.oldest_ms(TP0) is None


def test_a_chunk_that_was_never_delivered_makes_no_offset_committable() -> None:
    offsets = ChunkOffsets()
    offsets.delivered(TP0, 10)
    offsets.done(TP0, 99)
    assert offsets.committable(TP0) is None


def test_partitions_are_counted_separately() -> None:
    offsets = ChunkOffsets()
    other = TP("t", 1)
    offsets.delivered(TP0, 10)
    offsets.delivered(other, 7)
    offsets.done(other, 7)
    assert offsets.committable(TP0) is None
    assert offsets.committable(other) == 7
    assert offsets.partitions() == [other]
