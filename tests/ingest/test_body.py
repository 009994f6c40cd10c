"""The reader returns the whole body, or the reason why the body was not read."""

import asyncio

import pytest

from ingest.body import BodyFault, read_body
from ingest.load import SMALL_BYTES, BodyMemory


def receiving(*messages):
    """Return an ASGI `receive` that returns these messages, and then waits forever."""
    left = list(messages)

    async def receive():
        if not left:
            await asyncio.Event().wait()
        return left.pop(0)

    return receive


def chunk(body: bytes, *, more: bool = True):
    return {"type": "http.request", "body": body, "more_body": more}


async def read(*messages, limit_bytes=10, within_s=5.0, memory=None):
    until = asyncio.get_running_loop().time() + within_s
    memory = memory or BodyMemory()
    async with read_body(
        receiving(*messages), memory, limit_bytes=limit_bytes, until=until
    ) as body:
        return body


async def test_chunks_are_joined():
    assert await read(chunk(b"ab"), chunk(b""), chunk(b"c", more=False)) == b"abc"


async def test_a_server_may_leave_out_the_empty_fields_of_a_message():
    assert await read({"type": "http.request"}) == b""


@pytest.mark.parametrize(("size", "fault"), [(10, None), (11, BodyFault.TOO_LARGE)])
async def test_the_limit_is_the_largest_size_that_is_read(size, fault):
    body = b"x" * size
    assert await read(chunk(body, more=False)) == (fault or body)
    assert await read(chunk(body[:6]), chunk(body[6:], more=False)) == (fault or body)


async def test_a_body_over_the_limit_is_noticed_before_the_whole_body_has_arrived():
    assert await read(chunk(b"x" * 11)) is BodyFault.TOO_LARGE


async def test_a_body_that_does_not_arrive_in_time_is_too_slow():
    assert await read(chunk(b"x"), within_s=0.01) is BodyFault.TOO_SLOW


async def test_the_disconnect_of_a_sender_is_reported():
    assert await read(chunk(b"x"), {"type": "http.disconnect"}) is BodyFault.DISCONNECTED


async def test_a_cancelled_request_does_not_count_as_slow():
    reading = asyncio.create_task(read())
    await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading


async def test_a_body_is_not_read_further_and_releases_its_memory_if_there_is_no_memory_left():
    memory = BodyMemory(max_bytes=2 * SMALL_BYTES)
    large = chunk(b"x" * (2 * SMALL_BYTES))
    no_room = await read(large, chunk(b"x"), limit_bytes=2**20, memory=memory)
    assert no_room is BodyFault.NO_ROOM
    assert memory.grow(0, 2 * SMALL_BYTES)
