"""The demo's comparison finds every difference, and reports its place."""

import msgspec

from cli.demo import sample
from cli.demo.verdict import compare, differences

_EXPECTED = sample.expected()


def _altered(**changes: object) -> sample.SampleOutcome:
    return msgspec.structs.replace(_EXPECTED, **changes)


def test_two_outcomes_are_equal_whatever_the_sequence_of_their_refusals_and_rejections():
    shuffled = _altered(refused=_EXPECTED.refused[::-1], rejected=_EXPECTED.rejected[::-1])
    assert differences(_EXPECTED, shuffled) == []


def test_a_different_value_is_reported_with_the_order_and_path_of_the_value():
    orders = msgspec.json.decode(msgspec.json.encode(_EXPECTED.orders))
    orders["ord_1003"]["totals"]["KZT"]["refunded"] = 1
    orders["ord_1003"]["payments"][0]["refunds"].append("more")
    assert differences(_EXPECTED, _altered(orders=orders)) == [
        "order ord_1003: payments[0].refunds[1]: expected nothing, got 'more'",
        "order ord_1003: totals.KZT.refunded: expected 250050, got 1",
    ]


def test_a_missing_and_an_additional_order_are_reported():
    orders = dict(_EXPECTED.orders)
    orders["ord_x"] = orders.pop("ord_1001")
    first, second = differences(_EXPECTED, _altered(orders=orders))
    assert first.startswith("order ord_1001: expected {")
    assert first.endswith(", got nothing")
    assert second.startswith("order ord_x: expected nothing, got {")


def test_each_missing_refusal_and_each_repeated_rejection_is_reported():
    twice = _altered(rejected=(*_EXPECTED.rejected, _EXPECTED.rejected[0]), refused=())
    found = differences(_EXPECTED, twice)
    assert sum(line.startswith("refused: expected") for line in found) == len(_EXPECTED.refused)
    assert sum(line.startswith("rejected: got") for line in found) == 1


def test_the_value_true_differs_from_the_number_1():
    assert list(compare({"version": 1}, {"version": True})) == ["version: expected 1, got True"]
