"""Provides a fake ingress and fake views, which answer as the ledger does, or fail on demand.

Both are HTTP servers on the test's event loop, and each has its own free port.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web

from ledger.signature import verify

OLD, NEW = "whsec_test_key_old", "whsec_new"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """A server that has one route and one port, and can be stopped and restarted."""

    def __init__(self, path: str, handler: Handler) -> None:
        self._path, self._handler = path, handler
        self._runner: web.AppRunner | None = None
        self.port = 0

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        app = web.Application()
        app.router.add_route("*", self._path, self._handler)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner:
            await self._runner.cleanup()
            self._runner = None


class Ingress(Server):
    """An ingress that checks signatures and keeps bodies; ``fault`` chooses each attempt's fault.

    With ``refuse``, the ingress answers 503. With ``close``, it closes the connection. With
    ``hang``, it does not answer before the test ends. With ``lost``, it keeps the body and then
    closes the connection.
    """

    def __init__(self) -> None:
        super().__init__("/webhooks/plexy", self._take)
        self.secrets = [OLD, NEW]
        self.bodies: list[bytes] = []
        self.kept: list[bytes] = []
        self.signed_with: list[str | None] = []
        self.arrived_s: list[float] = []
        self.refused = 0
        self.fault: Callable[[bytes], str | None] = lambda _body: None
        self.hanging = asyncio.Event()

    @property
    def url(self) -> str:
        return f"{self.origin}/webhooks/plexy"

    async def _take(self, request: web.Request) -> web.StreamResponse:
        self.arrived_s.append(time.monotonic())
        body = await request.read()
        self.bodies.append(body)
        fault = self.fault(body)
        if fault == "refuse":
            self.refused += 1
            return web.json_response({"code": "log_unavailable"}, status=503)
        if fault == "hang":
            await self.hanging.wait()
        if fault == "lost":
            self.kept.append(body)
        if fault in {"close", "lost"}:
            assert request.transport
            request.transport.close()
            return web.Response()
        return self._judge(request.headers["Plexy-Signature"], body)

    def _judge(self, header: str, body: bytes) -> web.StreamResponse:
        faults = {
            secret: verify(header, body, secrets=[secret.encode()], now_s=time.time())
            for secret in self.secrets
        }
        good = [secret for secret, fault in faults.items() if fault is None]
        self.signed_with += good or [None]
        if not good:
            code = max(str(fault) for fault in faults.values())
            return web.json_response({"code": code}, status=401)
        self.kept.append(body)
        return web.json_response({"received": True})


class Views(Server):
    """Serves encoded order documents; if ``status`` is not 200, every request gets that status."""

    def __init__(self) -> None:
        super().__init__(r"/orders/{order_id:[\s\S]+}", self._read)
        self.documents: dict[str, bytes] = {}
        self.status = 200
        self.token: str | None = None
        self.asked: list[str] = []

    async def _read(self, request: web.Request) -> web.StreamResponse:
        order_id = request.match_info["order_id"]
        self.asked.append(order_id)
        given = request.headers.get("Authorization")
        if self.token and given != f"Bearer {self.token}":
            return web.json_response({"code": "unauthorized"}, status=401)
        if self.status != 200:
            return web.json_response({"code": "not_ready"}, status=self.status)
        if order_id not in self.documents:
            return web.json_response({"code": "order_not_found"}, status=404)
        return web.Response(body=self.documents[order_id], content_type="application/json")


@pytest.fixture
async def ingress() -> AsyncIterator[Ingress]:
    server = Ingress()
    await server.start()
    yield server
    server.hanging.set()
    await server.stop()


@pytest.fixture
async def views() -> AsyncIterator[Views]:
    server = Views()
    await server.start()
    yield server
    await server.stop()
