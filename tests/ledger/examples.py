"""Provides hand-written events; a test sets only the fields that matter to the test."""

from ledger.events import PAYMENT_FAILED, PAYMENT_SUCCEEDED, REFUND_SUCCEEDED, Event
from ledger.lifecycle import SEED
from ledger.money import Money


def success(event_id="evt_1", created=1, amount=500, *, payment="pay_1", **more) -> Event:
    return _event(PAYMENT_SUCCEEDED, event_id, created, amount, data_id=payment, **more)


def failure(event_id="evt_f", created=1, amount=500, *, payment="pay_1", **more) -> Event:
    return _event(PAYMENT_FAILED, event_id, created, amount, data_id=payment, **more)


def refund(
    event_id="evt_r", created=2, amount=100, *, refund_id="re_1", payment="pay_1", **more
) -> Event:
    """Create a refund; with ``payment=None``, the refund's own id is also its payment id."""
    fields = {"data_id": refund_id, "payment": payment, **more}
    return _event(REFUND_SUCCEEDED, event_id, created, amount, **fields)


def _event(
    kind, event_id, created, amount, *, data_id, payment=None, currency="KZT", order=None, offset=0
) -> Event:
    return Event(
        event_id=event_id,
        type=kind,
        created=created,
        data_id=data_id,
        money=Money(amount, currency),
        status=None,
        order_reference=order,
        payment_reference=payment,
        partition=0,
        offset=offset,
        kind=SEED.types[kind],
    )
