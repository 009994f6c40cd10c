"""Bytes that aiohttp can't parse appear neither in its answer nor in the log."""

import asyncio
import logging
from collections.abc import AsyncIterator

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import BaseTestServer, RawTestServer, TestServer

from processors.views.access import hide_unreadable_requests, middlewares

SECRET = b"Authorization: Bearer token_of_the_tests"
HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
# Each list has the parts of a request. A second part is sent after the answer to the first part.
UNREADABLE = {
    "no request": [SECRET + b"\r\n\r\n"],
    "a misread end": [HEAD + b"Content-Length: 0\r\n\r\n", SECRET + b"\r\n\r\n"],
    "a misread end at once": [HEAD + b"Content-Length: 2\r\n\r\nxx" + SECRET + b"\r\n\r\n"],
    "a chunk": [HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + SECRET + b"\r\n\r\n"],
    "a header": [HEAD + b"X: \x00" + SECRET + b"\r\n\r\n"],
    "a length": [HEAD + b"Content-Length: " + SECRET + b"\r\n\r\n"],
    "an encoding": [HEAD + b"Transfer-Encoding: " + SECRET + b"\r\n\r\n"],
    "a version": [b"GET / HTTP/" + SECRET + b"\r\n\r\n"],
    "an address": [b"GET http://a:b:c/" + SECRET.replace(b" ", b"") + b" HTTP/1.1\r\n\r\n"],
    "after an upgrade": [
        HEAD + b"Upgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        SECRET + b"\r\n\r\n",
    ],
    "a long line": [b"GET /" + SECRET.replace(b" ", b"") * 1000 + b" HTTP/1.1\r\n\r\n"],
}


@pytest.fixture
async def server() -> AsyncIterator[TestServer]:
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(text="answered")

    hide_unreadable_requests()
    application = web.Application(middlewares=middlewares(None))
    application.router.add_get("/", answer)
    async with TestServer(application) as running:
        yield running


async def exchange(server: BaseTestServer, parts: list[bytes]) -> bytes:
    """Send the parts of a request; return all bytes received until the connection is closed."""
    address = server.make_url("/")
    reader, writer = await asyncio.open_connection(address.host, address.port)
    received = b""
    for number, part in enumerate(parts):
        if number:
            received += await reader.readuntil(b"answered")
        writer.write(part)
    received += await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return received


@pytest.mark.parametrize("parts", UNREADABLE.values(), ids=UNREADABLE)
async def test_the_answer_to_a_request_that_cannot_be_parsed_contains_none_of_the_requests_bytes(
    server, parts, caplog
):
    caplog.set_level(logging.DEBUG)
    received = await exchange(server, parts)
    _, _, problem = received.rpartition(b"\r\n\r\n")
    assert msgspec.json.decode(problem)["code"] == "malformed_request"
    for hidden in ("Bearer", "token_of_the_tests"):
        assert hidden not in received.decode()
        assert hidden not in caplog.text
    assert not [record for record in caplog.records if record.name == "aiohttp.server"]


async def test_a_body_that_cannot_be_decompressed_is_not_logged_after_the_answer(server, caplog):
    caplog.set_level(logging.DEBUG)
    packed = HEAD + b"Content-Encoding: gzip\r\nContent-Length: 40\r\n\r\n"
    assert b"answered" in await exchange(server, [packed, SECRET])
    assert not [record for record in caplog.records if record.name == "aiohttp.server"]


async def test_an_unexpected_exception_in_a_view_is_still_logged(caplog):
    async def fails(_request: web.BaseRequest) -> web.StreamResponse:
        raise LookupError("a bug in the view")

    hide_unreadable_requests()
    async with RawTestServer(fails) as server:
        assert b"500" in await exchange(server, [b"GET / HTTP/1.0\r\n\r\n"])
    assert "a bug in the view" in caplog.text
