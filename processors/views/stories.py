"""The story of one event: its outcome, and all of its deliveries."""

import asyncio

import msgspec

from ledger.payment_documents import TOO_LARGE, PlacedPayment
from ledger.rejections import Reason
from ledger.verification.history import ACCEPTED, FOLDED, Delivery, accepted, deliveries
from processors.topology import LedgerApp
from processors.views import state
from processors.views.deliveries import of_event, rules_of, unjudged
from runtime.kafka.topic_reader import READ_WITHIN_S, in_time


class Story(msgspec.Struct, omit_defaults=True, kw_only=True):
    """An event: its outcome, and all its deliveries, sorted by their arrival.

    If a delivery is folded, ``outcome`` is the outcome of this delivery. Otherwise, it is the
    outcome of the first delivery.

    ``payment_id`` and ``order_id`` name the payment and the order of a folded event; ``order_id``
    is missing until the hop ``payments`` has folded the event. The outcome ``accepted`` means that
    the event is in the log but not judged yet. An event that ingress refused is not in the log: it
    has no deliveries, and ``outcome`` is the reason.
    """

    event_id: str
    outcome: str
    detail: str = ""
    payment_id: str | None = None
    order_id: str | None = None
    deliveries: list[Delivery]


async def any_story(app: LedgerApp, event_id: str) -> Story | None:
    """Return an event's story, from this or another worker."""
    if state.is_here(app, "seen", event_id):
        return await story_of(app, event_id)
    path = f"/events/{state.encoded(event_id)}"
    answer = await state.ask(app, "seen", event_id, path, READ_WITHIN_S)
    return msgspec.json.decode(answer, type=Story) if answer else None


async def story_of(app: LedgerApp, event_id: str, *, raw: bool = False) -> Story | None:
    """Return the story of an event in this worker's partitions; ``None`` for an unknown id."""
    async with in_time(f"the deliveries of event {event_id!r:.80}"):
        return await _story_of(app, event_id, raw=raw)


async def _story_of(app: LedgerApp, event_id: str, *, raw: bool) -> Story | None:
    places = await state.any_event(app, event_id)
    if places is None:
        waiting = await unjudged(app, event_id)
        # The event may have been judged while the log was read.
        places = await state.any_event(app, event_id)
        if places is None and waiting:
            found = await asyncio.to_thread(accepted, waiting, app.settings.trust, raw=raw)
            return Story(event_id=event_id, outcome=ACCEPTED, deliveries=found)
    if places is None:
        return await _refused(app, event_id)
    records = await of_event(app, event_id, places)
    found = await asyncio.to_thread(deliveries, records, rules_of(app), app.settings.trust, raw=raw)
    # If the id was forgotten once, the deliveries from before that time are not in `found`.
    first = next((each for each in found if each.outcome == FOLDED), found[0])
    payment_id, order_id, outcome = first.payment_id, None, first.outcome
    if outcome == FOLDED and payment_id is not None:
        payment = await state.any_payment(app, payment_id)
        if payment and event_id in {event.event_id for event in payment.events}:
            order_id = payment.order_id
        elif payment and TOO_LARGE in payment.anomalies and _is_later(first, payment):
            outcome = Reason.TOO_MANY_EVENTS
    return Story(
        event_id=event_id,
        outcome=outcome,
        detail=first.detail,
        payment_id=payment_id,
        order_id=order_id,
        deliveries=found,
    )


def _is_later(delivery: Delivery, payment: PlacedPayment) -> bool:
    """Return whether an event is later than all events that its payment keeps."""
    if not payment.events:
        return False
    last = payment.events[-1]
    return (delivery.created or 0, delivery.event_id) > (last.created, last.event_id)


async def _refused(app: LedgerApp, event_id: str) -> Story | None:
    """Return the story of an event that is only in the quarantine."""
    items = await app.rejections.of(event_id.encode())
    if not items:
        return None
    last = items[-1]
    where = f"it is in the log at {last.source}" if last.source else "ingress refused it"
    detail = f"{where}: {last.detail}"
    return Story(event_id=event_id, outcome=last.reason, detail=detail, deliveries=[])
