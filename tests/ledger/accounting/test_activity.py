"""The sums of all entries, by account, currency and day, equal the sums of the standing entries.

An entry stands unless it is a reversal or was reversed.
"""

from hypothesis import given
from hypothesis import strategies as st

from ledger.accounting.activity import DAY_S, activity_of, add, standing_activity
from ledger.journal import balances
from tests.ledger.examples import refund, success
from tests.ledger.pipeline import Pipeline
from tests.strategies import chunked, histories


def without_zeros(sums):
    return {key: amount for key, amount in sums.items() if amount}


def test_entries_are_summed_by_the_day_of_their_facts():
    pipeline = Pipeline()
    pipeline.fold([[success("evt_1", 1, 500), refund("evt_2", DAY_S, 100)]])
    assert activity_of(pipeline.entries.values()) == {
        ("assets:plexy", "KZT", 0): 500,
        ("income:sales", "KZT", 0): -500,
        ("income:refunds", "KZT", 1): 100,
        ("assets:plexy", "KZT", 1): -100,
    }


@given(st.data())
def test_the_sums_of_all_entries_equal_the_sums_of_the_standing_entries(
    data: st.DataObject,
) -> None:
    pipeline = Pipeline()
    pipeline.fold(data.draw(chunked(data.draw(histories()))))
    posted, standing = dict(activity_of(pipeline.entries.values())), {}
    for payment in pipeline.payments.values():
        add(standing, standing_activity(payment))
    assert without_zeros(posted) == without_zeros(standing)
    by_account: dict[tuple[str, str], int] = {}
    for (account, currency, _), amount in posted.items():
        by_account[account, currency] = by_account.get((account, currency), 0) + amount
    assert by_account == balances(pipeline.entries)
