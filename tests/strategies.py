"""Generates histories of events from so few ids that events often conflict."""

from itertools import pairwise
from typing import Any

from hypothesis import strategies as st

from ledger.events import PAYMENT_FAILED, PAYMENT_SUCCEEDED, REFUND_SUCCEEDED, Event
from ledger.lifecycle import SEED
from ledger.money import Money

PAYMENTS = ("pay_1", "pay_2", "pay/3 ü")
ORDERS = ("ord_1", "ord_2", "№ 3/b")
REFUNDS = ("re_1", "re_2", *PAYMENTS)
CURRENCIES = ("KZT", "USD")
# No id of an event or a payment may contain these characters, which form Unicode's category Cc.
CONTROL_CHARACTERS = [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0))]


def facts() -> st.SearchStrategy[dict[str, Any]]:
    """Return a strategy for the fields of one event, except its id and place."""
    common = {
        "created": st.integers(1, 9),
        "money": st.builds(
            Money, st.integers(0, 5) | st.just(2**53 - 1), st.sampled_from(CURRENCIES)
        ),
        "status": st.none(),
        "order_reference": st.one_of(st.none(), st.sampled_from(ORDERS)),
    }
    attempts = st.fixed_dictionaries(
        {
            **common,
            "type": st.sampled_from([PAYMENT_SUCCEEDED, PAYMENT_FAILED]),
            "data_id": st.sampled_from(PAYMENTS),
            "payment_reference": st.none(),
        }
    )
    refunds = st.fixed_dictionaries(
        {
            **common,
            "type": st.just(REFUND_SUCCEEDED),
            "data_id": st.sampled_from(REFUNDS),
            "payment_reference": st.one_of(st.none(), st.sampled_from(PAYMENTS)),
        }
    )
    return st.one_of(attempts, refunds)


# The strategy is built once, because building it costs more than drawing from it.
_FACTS = facts()


@st.composite
def histories(draw: st.DrawFn, max_size: int = 12) -> list[Event]:
    """Draw distinct events, each at its own place in the log."""
    drawn = draw(st.lists(_FACTS, max_size=max_size))
    return [
        Event(
            **fields,
            event_id=f"evt_{n}",
            partition=n % 3,
            offset=n,
            kind=SEED.types[fields["type"]],
        )
        for n, fields in enumerate(drawn)
    ]


@st.composite
def chunked(draw: st.DrawFn, items: list[Any]) -> list[list[Any]]:
    """Cut a list into consecutive chunks at drawn places."""
    cuts = sorted(draw(st.sets(st.integers(0, len(items)))) | {0, len(items)})
    return [items[a:b] for a, b in pairwise(cuts)]


def json_values() -> st.SearchStrategy[Any]:
    """Return a strategy for JSON values whose texts UTF-8 can encode (no lone surrogates)."""
    text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    leaves = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), text)
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3), st.dictionaries(text, inner, max_size=3)
        ),
        max_leaves=8,
    )
