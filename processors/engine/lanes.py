"""A lane processes one partition's chunks in sequence; all partitions' lanes run concurrently.

So while one partition waits for the broker, the work on other partitions goes on. An exception in
any lane ends the agent, and the agent's end ends the worker. The lane's chunk is then unfinished,
so it is redelivered after the restart.
"""

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable

import structlog

from processors.engine.chunk import Chunk, RevokedError

log = structlog.get_logger(__name__)


class InterruptedWorkError(Exception):
    """A task that the work waited for was cancelled, for example because a client closed."""


Work = Callable[[Chunk], Awaitable[None]]


async def work_in_lanes(chunks: AsyncIterable[Chunk], work: Work) -> None:
    """Do ``work`` for each chunk of a stream, until the stream ends or the work raises."""
    tails: dict[int, asyncio.Task[int | None]] = {}
    async with asyncio.TaskGroup() as lanes:
        async for chunk in chunks:
            ahead = tails.get(chunk.partition)
            tails[chunk.partition] = lanes.create_task(_work_after(ahead, chunk, work))


async def _work_after(
    ahead: asyncio.Task[int | None] | None, chunk: Chunk, work: Work
) -> int | None:
    """Do the work once the chunk ahead has ended; for a dropped chunk, return its ``given_back``.

    After a dropped chunk, all later chunks with the same ``given_back`` (of the same assignment)
    are dropped too. Otherwise a later chunk would be committed although the records before it were
    not folded.
    """
    if ahead is not None:
        if not ahead.done():
            await asyncio.wait([ahead])
        # If the chunk ahead failed, `result` raises its error, so the work on this chunk does not
        # begin.
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
        # A task that the lane waited for was cancelled, but the lane itself was not. The task group
        # would ignore a ``CancelledError``, and the partition would hang without an error.
        raise InterruptedWorkError(repr(chunk)) from error
    return None
