"""A lane works on the chunks of one partition in sequence; different lanes work in parallel.

In a rebalance and at its end, a worker gives back its partitions with their unfinished chunks.
"""

import asyncio
from collections.abc import AsyncIterator

import pytest
from faust.types import TP

from processors.engine.chunk import Chunk, RevokedError
from processors.engine.lanes import InterruptedWorkError, work_in_lanes
from tests.fakes import FakeConsumer, until


async def stream(*chunks: Chunk) -> AsyncIterator[Chunk]:
    for chunk in chunks:
        yield chunk


async def endless(*chunks: Chunk) -> AsyncIterator[Chunk]:
    """Yield the chunks, then wait for more chunks forever, as an agent's stream does."""
    for chunk in chunks:
        yield chunk
    await asyncio.Event().wait()


async def test_chunks_of_one_partition_are_processed_one_by_one():
    consumer = FakeConsumer()
    steps = []

    async def work(chunk: Chunk) -> None:
        steps.append(("begins", chunk.next_offset))
        # Earlier chunks take longer than later chunks. If a chunk did not wait, it would overtake
        # an earlier chunk.
        for _ in range(10 - chunk.next_offset):
            await asyncio.sleep(0)
        steps.append(("ends", chunk.next_offset))

    await work_in_lanes(stream(*(consumer.chunk(0, offset) for offset in range(5))), work)
    assert steps == [(what, n) for n in range(1, 6) for what in ("begins", "ends")]
    assert consumer.offsets.committable(TP("topic", 0)) == 5
    assert consumer.at_work == set()


async def test_chunks_of_different_partitions_overlap():
    consumer = FakeConsumer()
    everybody = asyncio.Barrier(3)

    async def work(_chunk: Chunk) -> None:
        # The work ends only if all three chunks are in progress at the same time.
        await everybody.wait()

    async with asyncio.timeout(10):
        await work_in_lanes(stream(*(consumer.chunk(p, 7) for p in range(3))), work)
    assert [consumer.offsets.committable(TP("topic", p)) for p in range(3)] == [8, 8, 8]


async def test_a_blocked_partition_does_not_delay_other_partitions():
    consumer = FakeConsumer()
    held, ended = asyncio.Event(), []

    async def work(chunk: Chunk) -> None:
        if chunk.partition == 0:
            await held.wait()
        ended.append((chunk.partition, chunk.next_offset))

    chunks = [consumer.chunk(p, offset) for offset in range(3) for p in range(2)]
    lanes = asyncio.create_task(work_in_lanes(stream(*chunks), work))
    await until(lambda: len(ended) == 3)
    assert ended == [(1, 1), (1, 2), (1, 3)]
    assert consumer.offsets.committable(TP("topic", 0)) is None
    held.set()
    await lanes
    assert ended[3:] == [(0, 1), (0, 2), (0, 3)]


async def test_an_exception_ends_all_lanes_and_no_later_chunk_of_the_partition_is_processed():
    consumer = FakeConsumer()
    begun = []

    async def work(chunk: Chunk) -> None:
        begun.append(chunk.next_offset)
        await asyncio.sleep(0)
        if chunk.next_offset == 2:
            raise RuntimeError("unexpected")

    chunks = [consumer.chunk(0, offset) for offset in range(4)]
    # The stream never ends by itself, so the exception must end the work.
    async with asyncio.timeout(10):
        with pytest.raises(ExceptionGroup) as raised:
            await work_in_lanes(endless(*chunks), work)
    assert raised.group_contains(RuntimeError, match="unexpected")
    assert begun == [1, 2]
    assert consumer.offsets.committable(TP("topic", 0)) == 1
    assert consumer.at_work == set()


async def test_work_that_cancels_itself_is_an_error_and_no_later_chunk_is_processed():
    consumer = FakeConsumer()
    begun = []

    async def work(chunk: Chunk) -> None:
        begun.append(chunk.next_offset)
        # If a client cancels a future, the code that awaits the future also gets this exception.
        raise asyncio.CancelledError

    with pytest.raises(ExceptionGroup) as caught:
        await work_in_lanes(stream(*(consumer.chunk(0, offset) for offset in range(3))), work)
    assert caught.group_contains(InterruptedWorkError)
    assert begun == [1]
    assert consumer.offsets.partitions() == []


async def test_an_exception_cancels_the_work_of_other_partitions_and_that_work_does_not_count():
    consumer = FakeConsumer()
    cancelled = []

    async def work(chunk: Chunk) -> None:
        if chunk.partition == 0:
            raise RuntimeError("unexpected")
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append(chunk.partition)

    async with asyncio.timeout(10):
        with pytest.raises(ExceptionGroup):
            await work_in_lanes(stream(consumer.chunk(1, 0), consumer.chunk(0, 0)), work)
    assert cancelled == [1]
    assert consumer.offsets.partitions() == []


async def test_a_chunk_that_was_given_back_is_dropped_and_the_redelivered_chunk_is_folded():
    consumer = FakeConsumer()
    ended = []

    async def work(chunk: Chunk) -> None:
        if chunk is first:
            consumer.rebalance()
            redelivered.append(consumer.chunk(0, 0, 1))
            chunk.ensure_ours()
        ended.append(chunk)

    redelivered: list[Chunk] = []
    first, waiting = consumer.chunk(0, 0), consumer.chunk(0, 1)

    async def chunks() -> AsyncIterator[Chunk]:
        yield first
        yield waiting
        await until(lambda: redelivered)
        yield redelivered[0]

    await work_in_lanes(chunks(), work)
    # The chunk in progress and the waiting chunk were both given back, so neither ended.
    assert ended == redelivered
    assert consumer.offsets.committable(TP("topic", 0)) == 2


async def test_a_chunk_that_ends_after_its_partition_was_given_back_does_not_count_as_done():
    consumer = FakeConsumer()

    async def work(_chunk: Chunk) -> None:
        consumer.rebalance()
        consumer.chunk(0, 0)

    await work_in_lanes(stream(consumer.chunk(0, 0)), work)
    # The redelivered chunk has the same offset, and must not count as done.
    assert consumer.offsets.committable(TP("topic", 0)) is None


async def test_the_error_for_a_chunk_that_was_given_back_names_the_chunk():
    consumer = FakeConsumer()
    chunk = consumer.chunk(3, 5, 6, 7)
    chunk.ensure_ours()
    consumer.rebalance()
    with pytest.raises(RevokedError, match=r"topic\[3\] 5\.\.7"):
        chunk.ensure_ours()


async def test_a_chunk_that_waits_in_its_lane_does_not_begin_after_partitions_are_given_back():
    """A stopping worker does not wait for this chunk, so the worker may close the chunk's table."""
    consumer = FakeConsumer()
    worked = []

    async def work(chunk: Chunk) -> None:
        worked.append(chunk.next_offset)
        consumer.gives_back = True

    await work_in_lanes(stream(consumer.chunk(0, 0), consumer.chunk(0, 1)), work)
    assert worked == [1]
    assert consumer.offsets.committable(TP("topic", 0)) == 1


async def test_after_a_dropped_chunk_the_later_chunks_are_dropped_until_the_next_assignment():
    """If a later chunk were folded, the table would lack the records of the dropped chunk."""
    consumer = FakeConsumer()
    worked = []

    async def work(chunk: Chunk) -> None:
        if chunk.next_offset == 1:
            raise RevokedError("the group says no")
        worked.append((chunk.partition, chunk.next_offset))

    async def chunks() -> AsyncIterator[Chunk]:
        for partition, offset in ((0, 0), (0, 1), (1, 7), (0, 2)):
            yield consumer.chunk(partition, offset)
        await until(lambda: worked)
        # A static member may keep its generation after a rebalance.
        consumer.given_back += 1
        yield consumer.chunk(0, 1)

    await work_in_lanes(chunks(), work)
    assert worked == [(1, 8), (0, 2)]
