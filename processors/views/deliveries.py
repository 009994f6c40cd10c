"""Reads all deliveries of an order or an event from the log of record.

Input: an order's state, or an event's id. Output: records of the log. An order names its payments,
a payment names its events, and the table ``seen`` has the places of each event in the log. Rows
that are not on this worker are requested from the other workers.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Final, TypeVar

from ledger.large_orders import LargeOrder
from ledger.notes import Note
from ledger.orders import Order, notes_of
from ledger.payment_documents import TOO_LARGE, EventReference, PlacedPayment
from ledger.records import SignedRecord
from ledger.verification.history import Rules
from processors.topology import LedgerApp
from processors.views import state
from processors.views.answers import ProblemError
from runtime.kafka.partitions import partition_for

MOST_DELIVERIES: Final = 2_000
"""The limit on the deliveries in an answer; more deliveries would delay the fold too much."""

_AT_A_TIME: Final = 50
# With bodies of 2 kB, this many records of a partition are some 2 MB. Usually, only a few records
# are not judged yet.
_MOST_UNJUDGED: Final = 1_000

Found = TypeVar("Found")


def rules_of(app: LedgerApp) -> Rules:
    """Return the rules with which this ledger folds its log."""
    settings = app.settings
    return Rules(
        reading=settings.reading,
        forget_after_ms=settings.forget_after_ms,
        signed_only=settings.enforced_trust is not None,
    )


def whole_order(app: LedgerApp, order_id: str) -> Order:
    """Return an order of this worker; raise a 413 if its deliveries do not fit into one answer."""
    order = state.existing_order(app, order_id)
    if isinstance(order, LargeOrder):
        raise too_large("the order has too many payments")
    if any(held.first_aside or held.first_left for held in order.payments.values()):
        raise too_large("a payment of the order has more events than the ledger keeps")
    return order


def too_large(why: str) -> ProblemError:
    """Return the error for an order that is too large; the error's text begins with ``why``."""
    return ProblemError(
        413,
        "order_too_large",
        f"{why}: ask for its payments one by one (/orders/<id>/payments, /payments/<id>), or let "
        "`plexy-ledger verify --order` read all of its deliveries",
    )


async def of_order(app: LedgerApp, order: Order) -> list[SignedRecord]:
    """Return the deliveries that name an order, or a payment that is or was in the order."""
    # Each payment has at least one event. So an order with too many payments also has too many
    # deliveries.
    _require_few(len(order.payments))
    held = {name: each.payment for name, each in order.payments.items() if each.payment}
    # A payment that has no order reference forms an order under the payment's own id. A later event
    # may have moved the payment to a different order.
    left = [*({order.order_id, *order.payments} - held.keys())]
    states = dict(zip(left, await _each(state.any_payment, app, left), strict=True))
    _require_written(order, states)
    named: list[EventReference | Note] = [*notes_of(order)]
    for payment in held.values():
        named += payment.events
    for placed in filter(None, states.values()):
        named += (*placed.events, *placed.notes)
    return await _of_events(app, named)


async def of_payment(app: LedgerApp, payment: PlacedPayment) -> list[SignedRecord]:
    """Return the deliveries that name a payment."""
    if TOO_LARGE in payment.anomalies:
        raise too_large("the payment has more events than it keeps")
    return await _of_events(app, [*payment.events, *payment.notes])


async def _of_events(app: LedgerApp, named: Sequence[EventReference | Note]) -> list[SignedRecord]:
    """Return all deliveries of the named events; ``named`` has one place of each event."""
    keys = {(each.partition, each.offset): each.event_id.encode() for each in named}
    events = {each.event_id for each in named}
    _require_few(len(events))
    known = await _each(state.any_event, app, events)
    for event_id, places in zip(events, known, strict=True):
        # For a forgotten event, only the places in ``named`` are known.
        if places is not None:
            keys |= _keys(event_id, places)
    _require_few(len(keys))
    return await app.reader.at(app.names.webhooks, keys)


async def of_event(app: LedgerApp, event_id: str, known: state.EventPlaces) -> list[SignedRecord]:
    """Return the deliveries of one event."""
    return await app.reader.at(app.names.webhooks, _keys(event_id, known))


async def unjudged(app: LedgerApp, event_id: str) -> list[SignedRecord]:
    """Return the deliveries of an event in this worker's partition that are not judged yet."""
    topic, key = app.names.webhooks, event_id.encode()
    partition = partition_for(key, app.settings.partitions)
    judged = state.judged_to(app, partition)
    end = (await app.reader.ends(topic, app.settings.partitions))[partition]
    start = max(judged, end - _MOST_UNJUDGED)
    found = await app.reader.between(topic, {partition: start}, {partition: end}, key)
    if not found and start > judged:
        raise ProblemError(
            503,
            "behind",
            f"{end - judged} records of the event's partition are not judged yet, too many to "
            "search for one answer; ask again",
        )
    return found


def _require_few(deliveries: int) -> None:
    if deliveries > MOST_DELIVERIES:
        raise too_large(f"the order has more than {MOST_DELIVERIES} deliveries")


def _require_written(order: Order, left: Mapping[str, PlacedPayment | None]) -> None:
    """Raise a 503 if the table ``payments`` does not have the newest state of a payment yet.

    ``left`` has the payments that have left the order, as their table has them. The hop
    ``payments`` publishes a snapshot before it writes its table. So for a moment, the order's
    snapshot of a payment may be newer than the table's state.
    """
    for name, payment in left.items():
        if payment and TOO_LARGE in payment.anomalies:
            raise too_large("a payment that was in the order has more events than the ledger keeps")
        known = order.payments.get(name)
        if known and (payment.version if payment else 0) < known.version:
            detail = f"payment {name!r:.80} has left the order and is not written yet; ask again"
            raise ProblemError(503, "changing", detail)


async def _each(
    ask: Callable[[LedgerApp, str], Awaitable[Found]], app: LedgerApp, identifiers: Iterable[str]
) -> list[Found]:
    """Ask for each identifier, a few at a time; the first error cancels all other requests."""
    free = asyncio.Semaphore(_AT_A_TIME)

    async def one(identifier: str) -> Found:
        async with free:
            return await ask(app, identifier)

    try:
        async with asyncio.TaskGroup() as group:
            asking = [group.create_task(one(identifier)) for identifier in identifiers]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [each.result() for each in asking]


def _keys(event_id: str, known: state.EventPlaces) -> dict[tuple[int, int], bytes]:
    """Return the places of an event's deliveries, each mapped to the key of its record."""
    places = ((known.partition, offset) for offset in (known.first, *known.repeats))
    return dict.fromkeys(places, event_id.encode())
