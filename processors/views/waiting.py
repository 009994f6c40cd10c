"""Read your own write: an answer that waits until an event is folded.

For ``?event=<id>&wait=5s``, the answer is the first state that includes the event. If it becomes
known that no state will ever include the event, the answer is a 409. If the time is up, the answer
is a 504, which says where the event is. A sender knows the event's id, and knows from ingress's
acknowledgement that the log has the event.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Final, Literal, TypeVar

from msgspec import UNSET

from ledger.orders import OrderDocument
from ledger.payment_documents import PlacedPayment
from ledger.verification.history import ACCEPTED, FOLDED
from processors.topology import LedgerApp
from processors.views import parameters
from processors.views.answers import ProblemError
from processors.views.stories import any_story
from runtime.kafka.topic_reader import READ_WITHIN_S, LogUnreadableError

MOST_WAITERS: Final = 200
"""The limit on waiting requests, for each of the tables orders and payments.

Each waiting request occupies a connection.
"""

# An event passes through the three hops in some tens of milliseconds. If an event takes longer than
# this limit, the log is searched for the event. The search is repeated after pauses, and each pause
# is twice as long as the one before.
_LOOK_AFTER_S: Final = 1.0

Document = TypeVar("Document", OrderDocument, PlacedPayment)


def more_s(request: Any) -> float:
    """Return how many more seconds a waiting answer may take: the wait, and a search of the log."""
    return parameters.wait_s(request) + READ_WITHIN_S if "event" in request.query else 0.0


async def until_folded(
    app: LedgerApp,
    request: Any,
    table: Literal["orders", "payments"],
    identifier: str,
    read: Callable[[], Document | None],
) -> Document | None:
    """Return the document that ``read`` returns, once it includes the event that the request names.

    If the request names no event, return the document at once. ``read`` reads the identifier's
    document from ``table``.
    """
    event_id: str = request.query.get("event", "")
    wait_s = parameters.wait_s(request)
    if not event_id:
        return read()
    watchers = app.chunk_tables[table].watchers
    if len(watchers) >= MOST_WAITERS:
        detail = f"{len(watchers)} requests already wait for events of {table}; ask again"
        raise ProblemError(503, "too_many_waiters", detail)
    clock = asyncio.get_running_loop().time
    until, pause_s = clock() + wait_s, _LOOK_AFTER_S
    with watchers.watch(identifier.encode()) as changed:
        while True:
            look_at = min(clock() + pause_s, until)
            document = await _until_changed(read, event_id, changed, look_at)
            if _rests_on(document, event_id):
                return document
            where = await _where(app, event_id, table, identifier, until + READ_WITHIN_S)
            # The event may have been folded while the log was read.
            if clock() >= until and not _rests_on(read(), event_id):
                detail = f"event {event_id!r:.80} is not folded after {wait_s:g} s: {where}"
                raise ProblemError(504, "event_not_folded", detail)
            pause_s *= 2


async def _until_changed(
    read: Callable[[], Document | None], event_id: str, changed: asyncio.Event, until: float
) -> Document | None:
    """Read the document after each change, until it includes the event, or the time is up."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout_at(until):
            while not _rests_on(read(), event_id):
                changed.clear()
                await changed.wait()
    return read()


def _rests_on(document: OrderDocument | PlacedPayment | None, event_id: str) -> bool:
    if document is None:
        return False
    if isinstance(document, OrderDocument) and document.summary is not UNSET:
        raise ProblemError(
            413,
            "order_too_large",
            "the order has too many payments to list their events: wait for the event at its "
            "payment (/payments/<id>?event=<event id>)",
        )
    payments = document.payments if isinstance(document, OrderDocument) else (document,)
    return any(event.event_id == event_id for payment in payments for event in payment.events)


async def _where(app: LedgerApp, event_id: str, table: str, identifier: str, until: float) -> str:
    """Return a clause that says where an event is; raise a 409 if no document will include it."""
    try:
        async with asyncio.timeout_at(until):
            story = await any_story(app, event_id)
    except TimeoutError:
        return "its progress is unknown, because Kafka or another worker is slow"
    except (LogUnreadableError, ProblemError) as error:
        return f"its progress is unknown, {error}"
    if story is None:
        return "it is not in the log; Plexy may never have delivered it"
    if story.outcome == ACCEPTED:
        return "it is in the log, and no worker has judged it yet"
    if story.outcome != FOLDED:
        raise _not_here(event_id, f"it is in the log, but is not counted ({story.outcome})")
    belongs_to = story.order_id if table == "orders" else story.payment_id
    if belongs_to in {None, identifier}:
        return "it is on its way"
    payment = f"payment {story.payment_id!r:.80}"
    if table == "orders" and story.order_id == story.payment_id:
        # The event that names the order may still arrive, for example after an early refund.
        return f"it belongs to {payment}, for which no event has named an order yet"
    of_order = f" of order {story.order_id!r:.80}" if story.order_id else ""
    raise _not_here(event_id, f"it belongs to {payment}{of_order}")


def _not_here(event_id: str, why: str) -> ProblemError:
    detail = f"event {event_id!r:.80} will never be part of this answer: {why}"
    return ProblemError(409, "event_not_here", detail)
