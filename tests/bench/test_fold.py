"""The orders that a peer produces are compared with the orders that the ledger's rules produce.

Every difference is reported.
"""

from bench.fold import Input, differences
from bench.program import OrderTotals
from bench.recording import record


def test_a_peer_folds_a_warm_up_and_then_the_measured_deliveries():
    deliveries = record(120, seed=1)
    given = Input.of(deliveries, 50)
    assert [*given.warm_up, *given.measured] == deliveries[:65]
    assert len(given.measured) == 50


def test_the_expected_totals_include_the_warm_up():
    deliveries = record(120, seed=1)
    whole, without = Input.of(deliveries, 100), Input([], deliveries[20:120])
    assert len(whole.expected) > len(without.expected)


def test_equal_orders_have_no_differences_and_differing_orders_are_reported():
    paid = OrderTotals("paid", (("KZT", 500, 0),))
    less = OrderTotals("paid", (("KZT", 499, 0),))
    assert differences({"A": paid}, {"A": paid}) == []
    assert differences({"A": less, "C": paid}, {"A": paid, "B": paid}) == [
        "3 orders differ (2 orders expected in all)",
        'A: got ["paid",[["KZT",499,0]]], expected ["paid",[["KZT",500,0]]]',
        'B: got no such order, expected ["paid",[["KZT",500,0]]]',
        'C: got ["paid",[["KZT",500,0]]], expected no such order',
    ]
