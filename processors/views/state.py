"""The ledger's state, from this worker's tables or from the worker that has the key.

Invariants: A table is never read while it may be outdated. For example, it may be outdated while it
is a standby, while it is being recovered, or while records that it has lost are folded again. Only
the worker that has an id's partition reports that the id is missing. A view that can't keep these
invariants answers 503.
"""

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, Final, TypeVar, cast
from urllib.parse import quote

import aiohttp
import msgspec
from faust.exceptions import SameNode
from yarl import URL

from ledger.deduplication import PROGRESS_KEY, START, Seen
from ledger.envelope import MAX_ID_BYTES
from ledger.large_orders import LargeOrder, OrderRows, OrderState, describe_large
from ledger.orders import OrderDocument, describe
from ledger.payment_documents import PlacedPayment
from ledger.payments import describe_placed
from ledger.topics import TableName
from ledger.wire import ORDERS, PAYMENTS, PLACED_PAYMENTS, PROGRESS, SEEN
from processors.engine.databases import PartitionRows
from processors.engine.router import ANSWER_WITHIN_S
from processors.rows import CorruptRowError, decode_row
from processors.topology import LedgerApp
from processors.views.answers import ProblemError, not_found
from runtime.kafka.partitions import partition_for
from runtime.kafka.topic_reader import READ_WITHIN_S
from runtime.problems import Problem

# The time limit for another worker's part of a list or a sum.
_PART_WITHIN_S: Final = 10.0
_NOT_HERE: Final = (
    "another worker has this key's partition; if this error persists, two workers have the same "
    "LEDGER_WEB_HOST and LEDGER_WEB_PORT: give each worker a different address"
)

Row = TypeVar("Row")
Get = TypeVar("Get", bound=Callable[..., Awaitable[Any]])


class EventPlaces(msgspec.Struct):
    """The places of an event's deliveries in the log, as a worker reports them to other workers."""

    partition: int
    first: int
    repeats: tuple[int, ...]


def reads_log(_request: Any) -> float:
    """Return the additional time that an answer from the log may take, in seconds."""
    return READ_WITHIN_S


def routed(
    app: LedgerApp,
    table: TableName,
    part: str,
    more_s: Callable[[Any], float] = lambda _request: 0.0,
) -> Callable[[Get], Get]:
    """Route a request to the worker that has the key's partition.

    ``part`` names the path parameter that holds the key. ``more_s`` returns the number of seconds
    that a request may take in addition to the router's limit: see ``Router``.
    """

    def routed_view(get: Get) -> Get:
        @wraps(get)
        async def answer(view: Any, request: Any, *args: Any, **path: Any) -> Any:
            extra_s = more_s(request)
            try:
                return await app.router.route_req(table, path[part], view.web, request, extra_s)
            except SameNode:
                return await get(view, request, *args, **path)

        return cast("Get", answer)

    return routed_view


def unready(app: LedgerApp) -> str | None:
    """Return the reason why the tables can't be read now; ``None`` if they can be read."""
    if app.rebalancing and not app.in_recovery:
        return "the workers are sharing out their partitions (rebalancing)"
    if app.in_recovery or not app.tables.actives_ready:
        return "the tables are being recovered from their changelogs"
    if not app.consumer.is_surely_member:
        return (
            "the group has not confirmed within the session timeout that this worker still has its "
            "partitions"
        )
    if refolding := app.consumer.refolding():
        return f"records that the tables have lost are being folded again: {refolding}"
    return None


def require_ready(app: LedgerApp) -> None:
    """Raise a 503 while the tables can't be read."""
    reason = unready(app)
    if reason:
        raise ProblemError(503, "not_ready", reason)


def require_whole(app: LedgerApp) -> None:
    """Raise a 503 if records that must be kept are lost, or if a setting may cause a loss."""
    if app.loss:
        raise ProblemError(503, app.loss.code, app.loss.detail)


def order(app: LedgerApp, order_id: str) -> OrderState | None:
    """Return an order in this worker's partitions."""
    return _read(app, "orders", order_id, ORDERS.decode)


def order_rows(app: LedgerApp, order: LargeOrder) -> OrderRows:
    """Return the rows of a large order in this worker's partitions."""
    partition = partition_for(order.order_id.encode(), app.settings.partitions)
    return OrderRows(order, PartitionRows(app.chunk_tables["orders"], partition))


def order_document(app: LedgerApp, order_id: str) -> OrderDocument | None:
    """Return the document of an order in this worker's partitions."""
    found = order(app, order_id)
    if isinstance(found, LargeOrder):
        return describe_large(found, order_rows(app, found))
    return describe(found) if found else None


def existing_order(app: LedgerApp, order_id: str) -> OrderState:
    """Return an order in this worker's partitions; raise a 404 if it does not exist."""
    found = order(app, order_id)
    if found is None:
        raise not_found("order", order_id)
    return found


def placed_payment(app: LedgerApp, payment_id: str) -> PlacedPayment | None:
    """Return a payment in this worker's partitions."""
    payment = _read(app, "payments", payment_id, PAYMENTS.decode)
    return describe_placed(payment) if payment else None


def seen(app: LedgerApp, event_id: str) -> Seen | None:
    """Return the row of an event in this worker's partitions."""
    return _read(app, "seen", event_id, SEEN.decode)


def judged_to(app: LedgerApp, partition: int) -> int:
    """Return the offset after the last judged record of one of this worker's partitions."""
    require_ready(app)
    progress = _stored(app, "seen", partition, PROGRESS_KEY, PROGRESS.decode)
    return (progress or START).offset + 1


async def any_payment(app: LedgerApp, payment_id: str) -> PlacedPayment | None:
    """Return a payment, from this or another worker."""
    if is_here(app, "payments", payment_id):
        return placed_payment(app, payment_id)
    answer = await ask(app, "payments", payment_id, f"/payments/{encoded(payment_id)}")
    return PLACED_PAYMENTS.decode(answer) if answer else None


async def any_event(app: LedgerApp, event_id: str) -> EventPlaces | None:
    """Return the places of an event in the log of record, from this or another worker."""
    partition = partition_for(event_id.encode(), app.settings.partitions)
    if is_here(app, "seen", event_id):
        held = seen(app, event_id)
        return EventPlaces(partition, held.offset, held.repeats) if held else None
    answer = await ask(app, "seen", event_id, f"/events/{encoded(event_id)}/places")
    return msgspec.json.decode(answer, type=EventPlaces) if answer else None


def is_here(app: LedgerApp, table: TableName, identifier: str) -> bool:
    """Return whether this worker folds the partition of an id."""
    partition = partition_for(identifier.encode(), app.settings.partitions)
    return app.chunk_tables[table].is_active(partition)


async def ask(
    app: LedgerApp, table: TableName, identifier: str, path: str, more_s: float = 0.0
) -> bytes | None:
    """Get a page from the worker that has an id's partition; return ``None`` for a 404.

    ``more_s`` is the additional time that the answer may take, in seconds.
    """
    try:
        owner = app.router.key_store(table, identifier.encode())
    except KeyError:
        raise ProblemError(503, "unavailable", "no worker has this key's partition yet") from None
    return await fetch(app, owner, path, ANSWER_WITHIN_S + more_s)


async def fetch(
    app: LedgerApp, worker: URL, path: str, within_s: float = _PART_WITHIN_S
) -> bytes | None:
    """Get a page from another worker; return ``None`` for a 404, raise a 503 on a failure."""
    url = URL(f"{worker.origin()}{path}", encoded=True)
    token = app.settings.api_token
    headers = {"Authorization": f"Bearer {token.reveal()}"} if token else {}
    try:
        async with app.http_client.get(
            url,
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=within_s),
            allow_redirects=False,
        ) as answer:
            if answer.status == 404:  # noqa: PLR2004
                return None
            if answer.status == 200:  # noqa: PLR2004
                return await answer.read()
            code, said = _problem(answer.status, await answer.read())
            raise ProblemError(503, code, f"the worker at {worker} answered {answer.status}{said}")
    except (aiohttp.ClientError, TimeoutError):
        detail = f"the worker at {worker} has a part of the answer, but does not respond"
        raise ProblemError(503, "unavailable", detail) from None


def _problem(status: int, body: bytes) -> tuple[str, str]:
    """Return the code and the text of another worker's problem.

    The code is ``unavailable`` unless the status is 503 and the body is a problem.
    """
    try:
        problem = msgspec.json.decode(body, type=Problem)
    except msgspec.DecodeError:
        return "unavailable", ""
    return problem.code if status == 503 else "unavailable", f": {problem.detail}"  # noqa: PLR2004


def encoded(identifier: str) -> str:
    """Encode an id for a path.

    Dots are encoded too, because a path segment that consists only of dots would be dropped.
    """
    return quote(identifier, safe="").replace(".", "%2E")


def _read(
    app: LedgerApp, table: TableName, identifier: str, decode: Callable[[bytes], Row]
) -> Row | None:
    require_ready(app)
    key = identifier.encode()
    if not key or len(key) > MAX_ID_BYTES:
        return None
    return _stored(app, table, partition_for(key, app.settings.partitions), key, decode)


def _stored(
    app: LedgerApp,
    table: TableName,
    partition: int,
    key: bytes,
    decode: Callable[[bytes], Row],
) -> Row | None:
    if not app.chunk_tables[table].is_active(partition):
        # The partition is either a standby, which may be outdated, or it is not on this worker's
        # disk.
        raise ProblemError(503, "not_ready", _NOT_HERE)
    held = app.chunk_tables[table]
    stored = held.read(partition, key)
    try:
        return None if stored is None else decode_row(held, partition, key, stored, decode)
    except CorruptRowError as error:
        raise ProblemError(500, "corrupt_row", str(error)) from error
