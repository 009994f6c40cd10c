"""Who watches a key is told of a chunk that has it, of no other, and leaves nothing behind."""

import pytest
from faust.types import TP

from processors.changes import Changes
from processors.chunk import Chunk, FetchedRecord
from tests.fakes import FakeConsumer


def chunk(*keys: bytes) -> Chunk:
    records = [FetchedRecord(key, b"", 0, offset, 0) for offset, key in enumerate(keys)]
    return Chunk(FakeConsumer(), TP("ledger.payments", 0), records)


async def test_a_chunk_is_told_to_all_who_watch_one_of_its_keys_and_to_nobody_else():
    changes = Changes()
    with changes.watch(b"one") as first, changes.watch(b"one") as second:
        with changes.watch(b"other") as other:
            assert changes.watchers == 3
            changes.folded(chunk(b"some", b"one", b"one"))
            assert (first.is_set(), second.is_set(), other.is_set()) == (True, True, False)
            changes.folded(chunk(b"other"))
            assert other.is_set()
        assert changes.watchers == 2
    assert changes.watchers == 0
    changes.folded(chunk(b"one"))


async def test_a_watch_that_ends_with_an_error_is_forgotten():
    changes = Changes()
    with pytest.raises(ValueError, match="gone"), changes.watch(b"one"):
        raise ValueError("gone")
    assert changes.watchers == 0
