"""Runs ingress on a real server and a free port, with a log that fails on demand."""

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette

from ingest.app import create_app
from ingest.limits import Limits
from ingest.server import server_config
from ingest.settings import IngestSettings
from ledger.signature import sign
from runtime.settings import Secret
from tests.fakes import FakeLog

SECRET = "whsec_of_the_tests"
PATH = "/webhooks/plexy"


def settings(**changes: Any) -> IngestSettings:
    """Return settings with one secret."""
    return IngestSettings(**{"webhook_secrets": (Secret(SECRET),), **changes})


def event(event_id: str = "evt_1", **changes: Any) -> bytes:
    """Return a delivery's body."""
    data = {"id": "pay_1", "amount": 990, "currency": "KZT", "status": "succeeded"}
    fields = {"id": event_id, "type": "payment.succeeded", "created": 1_767_225_600, "data": data}
    return json.dumps(fields | changes).encode()


def assert_problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Check that an answer is a problem document with this status and code; return the document."""
    document: dict[str, Any] = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, document["status"], document["code"]) == (status, status, code)
    assert document["detail"]
    return document


def signed(body: bytes, *, secret: str = SECRET, age_s: int = 0) -> dict[str, str]:
    """Return the headers that Plexy sends with this body."""
    signature = sign(body, secret.encode(), int(time.time()) - age_s)
    return {"Content-Type": "application/json", "Plexy-Signature": signature}


@contextlib.asynccontextmanager
async def serving(app: Starlette, limits: Limits = Limits()) -> AsyncIterator[str]:  # noqa: B008
    """Serve the application as `ingest.server` does, and yield its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = server_config(app, limits)
        config.load()
        server = uvicorn.Server(config)
        # `Server.serve` does the same, but also installs signal handlers and calls `on_tick` every
        # 0.1 s.
        server.lifespan = config.lifespan_class(config)
        await server.startup(sockets=[listener])
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            await server.shutdown(sockets=[listener])


class Ingress:
    """A running ingress with a client and its log."""

    def __init__(self, client: httpx.AsyncClient, log: FakeLog) -> None:
        self.client = client
        self.log = log

    async def deliver(self, body: bytes, **headers: str) -> httpx.Response:
        """Deliver a signed body; ``headers`` (`_` means `-`) replace or extend usual headers."""
        changed = {name.replace("_", "-"): value for name, value in headers.items()}
        kept = {k: v for k, v in signed(body).items() if k.lower() not in changed}
        return await self.client.post(PATH, content=body, headers=kept | changed)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a bare connection, for bytes that an HTTP client would not send."""
        url = self.client.base_url
        return await asyncio.open_connection(url.host, url.port)


@contextlib.asynccontextmanager
async def ingress(**changes: Any) -> AsyncIterator[Ingress]:
    """Run ingress with these settings on a fake log."""
    log = FakeLog()
    async with (
        serving(create_app(settings(**changes), log)) as address,
        httpx.AsyncClient(base_url=address, trust_env=False, timeout=30) as client,
    ):
        yield Ingress(client, log)


@pytest.fixture
async def running() -> AsyncIterator[Ingress]:
    """Run an ingress with default settings."""
    async with ingress() as started:
        yield started
