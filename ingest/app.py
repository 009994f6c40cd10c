"""Builds the Starlette application: its routes, its startup and shutdown, and its error answers.

Input: settings; ``uvicorn ingest.app:app`` reads them from the environment. Invariant: there is no
middleware between the router and an endpoint.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ingest.answers import BUG, problem
from ingest.dialects import PayDialect, SdkDialect, WebhookDialect
from ingest.health import ReadinessProbe, alive
from ingest.log import Log, WebhookLog
from ingest.metrics import ProcessCounts
from ingest.openapi import Document
from ingest.settings import PAY_PATH, WEBHOOKS_PATH, IngestSettings
from ingest.webhooks import Room, WebhookEndpoint
from runtime.environment import isolate_process
from runtime.kafka.new_connections import NewConnections
from runtime.logs import configure
from runtime.settings import SettingsError

if TYPE_CHECKING:
    from ingest.spans import DeliverySpans

    app: Starlette

_log = structlog.get_logger(__name__)


def create_app(
    settings: IngestSettings, log: Log | None = None, counts: ProcessCounts | None = None
) -> Starlette:
    """Return ingress for these settings; ``log`` is Kafka unless a test passes a log of its own.

    ``counts`` collects this process's numbers for the metrics. Call this function in the process
    that serves, because the call may start the thread that sends spans.
    """
    kept = WebhookLog(settings) if log is None else log
    numbers = counts or ProcessCounts()
    readiness = ReadinessProbe(kept)
    connections = NewConnections(settings, numbers.certificate_expires)
    spans = _new_spans(settings)

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        if settings.allow_unsigned:
            _log.warning("signatures_not_checked", because="LEDGER_ALLOW_UNSIGNED=true")
        await kept.start()
        tasks = [asyncio.create_task(connections.watch())] if log is None else []
        if counts is not None:
            tasks.append(asyncio.create_task(counts.keep_looking(readiness, room.load)))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await kept.close()
            if spans is not None:
                await asyncio.to_thread(spans.close)

    async def answer_bug(_request: Request, _error: Exception) -> Response:
        """Answer 500 after a bug, whose traceback the server logs afterwards."""
        numbers.failed()
        return BUG

    room = Room(settings)

    def endpoint(dialect: WebhookDialect) -> WebhookEndpoint:
        return WebhookEndpoint(settings, dialect, kept, numbers, room, spans)

    webhooks = endpoint(SdkDialect(settings, numbers))
    routes = [
        Route(WEBHOOKS_PATH, webhooks, methods=["POST"]),
        Route("/healthz", alive),
        Route("/readyz", readiness.ready),
        Route("/openapi.json", Document(settings).page),
    ]
    if settings.pay_tokens and settings.pay_amounts is not None:
        notifications = endpoint(PayDialect(settings.pay_tokens, settings.pay_amounts))
        routes.append(Route(PAY_PATH, notifications, methods=["POST"]))
    handlers = {HTTPException: _answer_http_error, Exception: answer_bug}
    application = Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers)
    # A path with a trailing slash is answered with a 404 that names the right path, not with a 307.
    application.router.redirect_slashes = False
    # `ingest.server` passes requests that arrive whole directly to this handler. This halves the
    # cost of a delivery.
    application.state.direct = webhooks
    return application


def _new_spans(settings: IngestSettings) -> "DeliverySpans | None":
    if settings.traces == "off":
        return None
    # OpenTelemetry is imported only if it is needed, because the import costs time and memory.
    from ingest.spans import DeliverySpans  # noqa: PLC0415
    from runtime.tracing import Tracing  # noqa: PLC0415

    return DeliverySpans(Tracing("plexy-ledger-ingest"))


def __getattr__(name: str) -> Starlette:
    """Create ``app`` when a server asks for it, so that importing this module needs no settings."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    isolate_process()
    try:
        settings = IngestSettings.from_environment(os.environ)
        configure(settings.log_format, settings.log_level)
        return create_app(settings)
    except SettingsError as error:
        raise SystemExit(f"ingest can't start: {error}") from None


async def _answer_http_error(_request: Request, error: Exception) -> Response:
    """Answer a request that the router refuses for an unknown path or a wrong method."""
    if not isinstance(error, HTTPException):
        raise error
    if error.status_code == 405:  # noqa: PLR2004 - the router raises only 404 and 405
        # The router keeps methods in a set; sorting keeps the answer the same every time.
        allowed = ", ".join(sorted((error.headers or {})["Allow"].split(", ")))
        detail = f"this path allows only {allowed}"
        return problem("method_not_allowed", detail, headers={"Allow": allowed})
    return problem("not_found", f"no such path; Plexy delivers to {WEBHOOKS_PATH}")
