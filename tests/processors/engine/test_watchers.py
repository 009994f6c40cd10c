"""A watch of a key is woken only by chunks with that key, and is forgotten when the watch ends."""

import pytest
from faust.types import TP

from processors.engine.chunk import Chunk, FetchedRecord
from processors.engine.watchers import Watchers
from tests.fakes import FakeConsumer


def chunk(*keys: bytes) -> Chunk:
    records = [FetchedRecord(key, b"", 0, offset, 0) for offset, key in enumerate(keys)]
    return Chunk(FakeConsumer(), TP("ledger.payments", 0), records)


async def test_a_chunk_wakes_all_watchers_of_its_keys_and_no_other_watchers():
    watchers = Watchers()
    with watchers.watch(b"one") as first, watchers.watch(b"one") as second:
        with watchers.watch(b"other") as other:
            assert len(watchers) == 3
            watchers.folded(chunk(b"some", b"one", b"one"))
            assert (first.is_set(), second.is_set(), other.is_set()) == (True, True, False)
            watchers.folded(chunk(b"other"))
            assert other.is_set()
        assert len(watchers) == 2
    assert len(watchers) == 0
    watchers.folded(chunk(b"one"))


async def test_a_watch_that_ends_with_an_error_is_forgotten():
    watchers = Watchers()
    with pytest.raises(ValueError, match="gone"), watchers.watch(b"one"):
        raise ValueError("gone")
    assert len(watchers) == 0
