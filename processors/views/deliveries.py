"""All deliveries behind an order or an event, out of the log of record.

In: an order's state, an event's id. Out: the log's records, whichever workers have the keys that
lead to them: the order names its payments, they name their events, and each event's places in the
log are remembered under its id.
"""

import asyncio
from typing import Final

from ledger.history import Rules
from ledger.orders import Order
from ledger.truth import SignedRecord
from processors.topology import LedgerApp
from processors.views import state
from processors.views.answers import ProblemError

# A page of an order of thousands of payments would keep the worker from its work.
MOST_EVENTS: Final = 2_000


def rules_of(app: LedgerApp) -> Rules:
    """Return what this ledger's log is folded with."""
    return Rules(names=app.settings.field_names, forget_after_ms=app.settings.forget_after_ms)


async def of_order(app: LedgerApp, order: Order) -> list[SignedRecord]:
    """Return the deliveries of all payments that are, or once were, in an order."""
    facts: dict[str, tuple[int, int]] = {}
    # A payment that no fact had named an order for was one of its own, and may have left it.
    for payment_id in {order.order_id: None, **order.payments}:
        held = order.payments.get(payment_id)
        document = held.payment if held else None
        document = document or await state.any_payment(app, payment_id)
        for event in document.events if document else ():
            facts[event.event_id] = (event.partition, event.offset)
    if len(facts) > MOST_EVENTS:
        raise ProblemError(
            413,
            "order_too_large",
            f"the order has {len(facts)} events, more than the {MOST_EVENTS} that one answer "
            "holds; `plexy-ledger verify --order` reads them all",
        )
    return await _read(app, facts)


async def of_event(app: LedgerApp, known: state.EventPlaces) -> list[SignedRecord]:
    """Return the deliveries of one event."""
    return await app.reader.at(app.names.webhooks, _places(known))


async def _read(app: LedgerApp, facts: dict[str, tuple[int, int]]) -> list[SignedRecord]:
    places = set(facts.values())
    for known in await asyncio.gather(*(state.any_event(app, each) for each in facts)):
        # Of an event that is forgotten only the fact's own place is known.
        if known is not None:
            places |= _places(known)
    return await app.reader.at(app.names.webhooks, places)


def _places(known: state.EventPlaces) -> set[tuple[int, int]]:
    return {(known.partition, offset) for offset in (known.first, *known.repeats)}
