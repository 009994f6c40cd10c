"""Lanes: the chunks of one partition one after another, those of different partitions side by side.

So one partition's wait for the broker overlaps another's work. An exception in any lane ends the
agent, and with it the worker, before the chunk is done: it comes again after the restart.
"""

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable

import structlog

from processors.engine.chunk import Chunk, RevokedError

log = structlog.get_logger(__name__)


class InterruptedWorkError(Exception):
    """Something that the work waited for was cancelled, as by a client that closes."""


Work = Callable[[Chunk], Awaitable[None]]


async def work_in_lanes(chunks: AsyncIterable[Chunk], work: Work) -> None:
    """Do ``work`` for each chunk of a stream; return when the stream ends, raise if work raised."""
    tails: dict[int, asyncio.Task[int | None]] = {}
    async with asyncio.TaskGroup() as lanes:
        async for chunk in chunks:
            ahead = tails.get(chunk.partition)
            tails[chunk.partition] = lanes.create_task(_work_after(ahead, chunk, work))


async def _work_after(
    ahead: asyncio.Task[int | None] | None, chunk: Chunk, work: Work
) -> int | None:
    """Do the work; return the chunk's ``given_back`` if it was dropped.

    Until partitions are given back once more, every later chunk is dropped too: it would count, and
    be committed, although the records before it do not.
    """
    if ahead is not None:
        await asyncio.wait([ahead])
        # Raises if the chunk ahead failed: nothing of the partition may be done after it.
        if ahead.result() == chunk.given_back:
            return chunk.given_back
    try:
        with chunk.at_work():
            await work(chunk)
    except RevokedError:
        log.info("chunk dropped, its partition was given back", chunk=repr(chunk))
        return chunk.given_back
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        # Nobody cancelled the lane, but what it waited for: a task group would take it for an end
        # in order, and the partition would stand still without an error.
        raise InterruptedWorkError(repr(chunk)) from error
    return None
