"""Provides the other worker that a router asks: a small web server that owns a partition."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer
from faust.types import TP
from yarl import URL

from processors.topology import LedgerApp
from runtime.kafka.partitions import partition_for
from tests.fakes import until

PARTITIONS = 4
KEY = "ord 1/№".encode()


def assign(app: LedgerApp, owner: URL | str, key: bytes = KEY) -> None:
    """Set the owner of a key's partition, as the assignor does after a rebalance."""
    changelog = app.chunk_tables["orders"].changelog_topic.get_topic_name()
    app.assignor._tps_url[TP(changelog, partition_for(key, PARTITIONS))] = str(owner)


@asynccontextmanager
async def served(handler: Any) -> AsyncIterator[URL]:
    """Run a server that answers every request with ``handler``; yield the server's address."""
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", handler)
    async with TestServer(application) as server:
        yield server.make_url("/")


async def never_answers(request: web.Request) -> web.Response:
    """Give no answer until the client has closed the connection."""
    await until(lambda: request.transport is None)
    return web.Response()
