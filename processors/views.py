"""The web views: the state of an order or a payment, from whichever worker is asked.

In: HTTP requests; the tables of this worker, or another worker's answer (``table_route``).
Out: JSON documents, and problem documents (RFC 9457). Never: data without the bearer token where
one is configured, and never a table's state that is not recovered yet.
"""

import hmac
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar, cast

import structlog
from aiohttp import web
from faust.web import Request, View

from ledger.envelope import MAX_ID_BYTES
from ledger.orders import describe as describe_order
from ledger.payments import describe_placed
from ledger.topics import TableName
from ledger.wire import ORDER_DOCUMENTS, ORDERS, PAYMENTS, PLACED_PAYMENTS
from processors.readings import Readings
from processors.topology import LedgerApp
from runtime.metrics import CONTENT_TYPE
from runtime.partitions import partition_for
from runtime.problems import MEDIA_TYPE, Problem
from runtime.settings import Secret

log = structlog.get_logger(__name__)

_OPEN_PATHS: Final = frozenset({"/healthz", "/readyz"})
_NOT_HERE: Final = (
    "another worker has this key's partition; if this stays, two workers have the same "
    "LEDGER_WEB_HOST and LEDGER_WEB_PORT: give each its own"
)

Get = TypeVar("Get", bound=Callable[..., Awaitable[Any]])
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def add_views(app: LedgerApp) -> None:
    """Declare the views; ``app``'s web server serves them."""
    _add_health(app)
    _add_order(app)
    _add_payment(app)
    _add_metrics(app)


def middlewares(token: Secret | None) -> list[Any]:
    """Return the aiohttp middlewares: problem documents for errors, then the token."""
    return [_problems, _authorization(token)]


def _add_order(app: LedgerApp) -> None:
    @app.page(r"/orders/{order_id:[\s\S]+}")
    class OrderView(View):
        """One order's document."""

        @_routed(app, "orders", "order_id")
        async def get(self, _request: Request, *_args: Any, **path: Any) -> Any:
            order_id: str = path["order_id"]
            stored = _read(app, "orders", order_id)
            if isinstance(stored, Problem):
                return _problem(stored)
            document = describe_order(ORDERS.decode(stored)) if stored else None
            if document is None:
                return _not_found("order", order_id)
            return _json(ORDER_DOCUMENTS.encode(document))


def _add_payment(app: LedgerApp) -> None:
    @app.page(r"/payments/{payment_id:[\s\S]+}")
    class PaymentView(View):
        """One payment's document, with the order that it belongs to."""

        @_routed(app, "payments", "payment_id")
        async def get(self, _request: Request, *_args: Any, **path: Any) -> Any:
            payment_id: str = path["payment_id"]
            stored = _read(app, "payments", payment_id)
            if isinstance(stored, Problem):
                return _problem(stored)
            if stored is None:
                return _not_found("payment", payment_id)
            return _json(PLACED_PAYMENTS.encode(describe_placed(PAYMENTS.decode(stored))))


def _add_health(app: LedgerApp) -> None:
    @app.page("/healthz")
    class Health(View):
        """The process is alive."""

        async def get(self, _request: Request) -> Any:
            return _json(b'{"status":"alive"}')

    @app.page("/readyz")
    class Readiness(View):
        """The worker's tables are recovered, and its partitions are its own."""

        async def get(self, _request: Request) -> Any:
            reason = unready(app)
            if reason:
                return _problem(Problem(status=503, code="not_ready", detail=reason))
            return _json(b'{"status":"ready"}')


def _add_metrics(app: LedgerApp) -> None:
    readings = Readings(app)

    @app.page("/metrics")
    class Metrics(View):
        """What Prometheus reads; it asks with the token, as readers of orders do."""

        async def get(self, _request: Request) -> Any:
            body = await readings.page(ready=unready(app) is None)
            return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})


def _routed(app: LedgerApp, table: TableName, part: str) -> Callable[[Get], Get]:
    """Let the worker that has the key's partition answer; ``part`` of the path is the key."""
    return cast("Callable[[Get], Get]", app.table_route(app.chunk_tables[table], match_info=part))


def unready(app: LedgerApp) -> str | None:
    """Return why the tables can't be read now; ``None`` if they can."""
    if app.rebalancing and not app.in_recovery:
        return "the workers are sharing out their partitions (rebalancing)"
    if app.in_recovery or not app.tables.actives_ready:
        return "the tables are being recovered from their changelogs"
    return None


def _read(app: LedgerApp, table: TableName, identifier: str) -> bytes | Problem | None:
    reason = unready(app)
    if reason:
        return Problem(status=503, code="not_ready", detail=reason)
    key = identifier.encode()
    if len(key) > MAX_ID_BYTES:
        return None
    partition = partition_for(key, app.settings.partitions)
    if not app.chunk_tables[table].is_active(partition):
        # A standby's state may be old, and another worker's is not here at all.
        return Problem(status=503, code="not_ready", detail=_NOT_HERE)
    return app.chunk_tables[table].read(partition, key)


def _not_found(kind: str, identifier: str) -> web.Response:
    detail = f"no {kind} {identifier!r:.80} is in the ledger"
    return _problem(Problem(status=404, code=f"{kind}_not_found", detail=detail))


def _json(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json")


def _problem(problem: Problem, headers: dict[str, str] | None = None) -> web.Response:
    if problem.status == 503:  # noqa: PLR2004
        headers = {"Retry-After": "2", **(headers or {})}
    return web.Response(
        body=problem.encode(), status=problem.status, content_type=MEDIA_TYPE, headers=headers
    )


@web.middleware
async def _problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer every error with a problem document; an unexpected one is logged, not shown."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400:  # noqa: PLR2004
            raise
        code = "_".join(error.reason.lower().split())
        detail = f"{request.method} {request.path}: {error.reason}"
        allow = error.headers.get("Allow")
        problem = Problem(status=error.status, code=code, detail=detail)
        return _problem(problem, {"Allow": allow} if allow else None)
    except Exception:
        log.exception("a view failed", path=request.path)
        detail = "the view failed; the worker's log says why"
        return _problem(Problem(status=500, code="internal_error", detail=detail))


def _authorization(token: Secret | None) -> Any:
    expected = f"Bearer {token.reveal()}".encode() if token else None

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        """Ask for the bearer token, compared in constant time, but for the probes."""
        if expected is None or request.path in _OPEN_PATHS:
            return await handler(request)
        given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        if hmac.compare_digest(given, expected):
            return await handler(request)
        problem = Problem(
            status=401, code="unauthorized", detail="expected `Authorization: Bearer …`"
        )
        return _problem(problem, {"WWW-Authenticate": "Bearer"})

    return check
