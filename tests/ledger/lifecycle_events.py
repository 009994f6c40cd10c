"""Makes and generates facts of every kind, about a few payments, refunds and disputes."""

from hypothesis import strategies as st

from ledger.events import Event
from ledger.lifecycle import Kind
from ledger.money import Money
from tests.strategies import CURRENCIES, ORDERS

PAYMENTS = ("pay_1", "pay/2 ü")
OWN_IDS = ("x_1", "x/2", *PAYMENTS)
_NEEDS_MONEY = (Kind.SUCCEEDED, Kind.REFUNDED, Kind.CAPTURED)


def fact(kind, event_id="evt_1", created=1, amount=500, *, own="pay_1", **more) -> Event:
    """Create a fact about the payment ``pay_1``; with ``amount=None``, the fact has no money."""
    currency = more.pop("currency", "KZT")
    fields = {
        "payment_reference": "pay_1",
        "order_reference": "ord_1",
        "status": None,
        "partition": 0,
        "offset": 0,
        **more,
    }
    return Event(
        event_id=event_id,
        type=f"type.{kind}",
        created=created,
        data_id=own,
        money=None if amount is None else Money(amount, currency),
        kind=Kind(kind),
        **fields,
    )


@st.composite
def lifecycles(draw: st.DrawFn, max_size: int = 10, payments=PAYMENTS) -> list[Event]:
    """Draw distinct facts of any kind, each at its own place in the log."""
    facts = []
    for number in range(draw(st.integers(0, max_size))):
        kind = draw(st.sampled_from(sorted({*Kind} - {Kind.INFORMATIONAL})))
        has_amount = kind in _NEEDS_MONEY or draw(st.booleans())
        facts.append(
            fact(
                kind,
                f"evt_{draw(st.integers(0, 9))}_{number}",
                draw(st.integers(1, 6)),
                draw(st.integers(0, 5)) if has_amount else None,
                currency=draw(st.sampled_from(CURRENCIES)),
                own=draw(st.sampled_from(OWN_IDS)),
                payment_reference=draw(st.sampled_from(payments)),
                order_reference=draw(st.none() | st.sampled_from(ORDERS)),
                partition=number % 3,
                offset=number,
            )
        )
    return facts
