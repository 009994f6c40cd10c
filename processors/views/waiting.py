"""Read your own write: an answer that waits until an event is folded.

In: ``?event=<id>&wait=5s``. Out: the first state that rests on the event; or 504, which says where
the event is instead. Whoever delivered knows its id: ingress acknowledged it when the log had it.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final, TypeVar

from ledger.orders import OrderDocument
from ledger.payments import PlacedPayment
from processors.topology import LedgerApp
from processors.views import parameters
from processors.views.answers import ProblemError
from processors.views.stories import story_of

# An event takes some tens of milliseconds through the three hops.
_LOOK_EVERY_S: Final = 0.02

Document = TypeVar("Document", OrderDocument, PlacedPayment)


async def until_folded(
    app: LedgerApp, request: Any, read: Callable[[], Document | None]
) -> Document | None:
    """Return what ``read`` returns, once it rests on the event that the request names, if any."""
    event_id: str = request.query.get("event", "")
    wait_s = parameters.wait_s(request)
    if not event_id:
        return read()
    until = asyncio.get_running_loop().time() + wait_s
    while True:
        document = read()
        if document is not None and event_id in _events(document):
            return document
        if asyncio.get_running_loop().time() >= until:
            raise ProblemError(
                504,
                "event_not_folded",
                f"after {wait_s:g} s this does not rest on {event_id!r:.80}: "
                f"{await _where(app, event_id)}",
            )
        await asyncio.sleep(_LOOK_EVERY_S)


def _events(document: OrderDocument | PlacedPayment) -> set[str]:
    payments = document.payments if isinstance(document, OrderDocument) else (document,)
    return {event.event_id for payment in payments for event in payment.events}


async def _where(app: LedgerApp, event_id: str) -> str:
    """Say in half a sentence what the ledger knows of an event."""
    story = await story_of(app, event_id)
    if story is None:
        return "the workers have not met it in the log, or Plexy never delivered it"
    if story.outcome != "folded":
        return f"it is in the log and does not count ({story.outcome})"
    if story.order_id is None:
        return "it is on its way"
    return f"it belongs to payment {story.payment_id!r:.80} of order {story.order_id!r:.80}"
