"""A range of offsets is read from its start to its end, not beyond the end, within a time limit."""

from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition

from runtime.kafka import reading
from runtime.kafka.reading import StalledError, read_ranges


class Consumer:
    """A consumer of partitions with records at these offsets; if ``hidden``, no record arrives."""

    def __init__(self, offsets: dict[int, list[int]], *, hidden: bool = False) -> None:
        self.assignments: list[set[int]] = []
        self.sought: list[tuple[int, int]] = []
        self._offsets = offsets
        self._hidden = hidden
        self._at: dict[TopicPartition, int] = {}

    def assignment(self) -> frozenset[TopicPartition]:
        return frozenset(self._at)

    def assign(self, tps: list[TopicPartition]) -> None:
        self.assignments.append({tp.partition for tp in tps})
        self._at = dict.fromkeys(tps, 0)

    def seek(self, tp: TopicPartition, offset: int) -> None:
        self.sought.append((tp.partition, offset))
        self._at[tp] = offset

    async def position(self, tp: TopicPartition) -> int:
        return self._at[tp]

    async def getmany(self, **_options: int) -> dict[TopicPartition, Any]:
        """Return up to two records per partition.

        Once no record is left, move the positions past the last records.
        """
        fetched = {}
        for tp, at in self._at.items():
            found = [offset for offset in self._offsets[tp.partition] if offset >= at][:2]
            if found and not self._hidden:
                fetched[tp] = [SimpleNamespace(offset=offset) for offset in found]
                self._at[tp] = found[-1] + 1
        if not fetched and not self._hidden:
            self._at = dict.fromkeys(self._at, 1000)
        return fetched


async def offsets_read(
    consumer: Any, starts: dict[int, int], ends: dict[int, int]
) -> list[tuple[int, int]]:
    ranges = read_ranges(consumer, "topic", starts, ends)
    return sorted([(number, each.offset) async for number, some in ranges for each in some])


async def test_each_partition_is_read_from_its_start_to_its_end():
    consumer = Consumer({0: list(range(9)), 1: list(range(9))})
    found = await offsets_read(consumer, {0: 1, 1: 3}, {0: 6, 1: 4})
    assert found == [(0, 1), (0, 2), (0, 3), (0, 4), (0, 5), (1, 3)]
    # After the second partition has reached its end, only the first partition is read.
    assert consumer.assignments == [{0, 1}, {0}]


async def test_offsets_that_have_no_record_are_skipped():
    consumer = Consumer({0: [0, 4]})
    assert await offsets_read(consumer, {0: 0}, {0: 9}) == [(0, 0), (0, 4)]


async def test_an_empty_range_is_not_read():
    consumer = Consumer({0: [0]})
    assert await offsets_read(consumer, {0: 1}, {0: 1}) == []
    assert consumer.assignments == []


async def test_a_consumer_that_already_has_the_partition_seeks_and_is_not_assigned_again():
    consumer = Consumer({0: list(range(9))})
    for start in (1, 7):
        await offsets_read(consumer, {0: start}, {0: start + 2})
    assert consumer.assignments == [{0}]
    assert consumer.sought == [(0, 1), (0, 7)]


async def test_records_that_never_arrive_cause_an_error_that_names_the_offsets(monkeypatch):
    monkeypatch.setattr(reading, "_STALLED_AFTER_S", 0.01)
    with pytest.raises(StalledError, match=r"no record of topic .* at offsets \{0: 2\}"):
        await offsets_read(Consumer({0: [2]}, hidden=True), {0: 2}, {0: 5})
