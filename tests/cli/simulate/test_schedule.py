"""One seed always gives the same bytes, and the bytes cover everything that Plexy may send."""

import json
import subprocess
import sys
import time
from collections import defaultdict
from itertools import islice

import pytest

from cli.simulate.delivery import SenderOptions, headers
from cli.simulate.oracle import ORDER_FIELDS, PAYMENT_FIELDS
from cli.simulate.schedule import deliveries
from cli.simulate.stories import Dialects
from ledger.envelope import content_digest, decode_envelope
from ledger.events import FOLDED_TYPES, Event, Reading, Unfolded, decode_event
from ledger.pay import PayAmounts, PayEnvelope, decode_notification

_MANY = 4000

_PRINT_DIGEST = """
import hashlib
from cli.simulate.schedule import deliveries
sent = [(each.number, each.event_id, each.body, each.skew) for each in deliveries(5, 500)]
print(hashlib.sha256(repr(sent).encode()).hexdigest())
"""


@pytest.fixture(scope="module")
def sent():
    return list(deliveries(3, _MANY))


@pytest.fixture(scope="module")
def events(sent):
    """Return each event once, in the sequence of the events' first deliveries."""
    return list({each.event_id: json.loads(each.body) for each in sent}.values())


def test_the_same_seed_sends_the_same_bytes_in_the_same_sequence_in_every_process():
    digests = {
        subprocess.run(
            [sys.executable, "-c", _PRINT_DIGEST],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


@pytest.mark.parametrize("other", [(4, 500), (5, 501)])
def test_a_different_seed_or_number_of_events_gives_different_events(other):
    ids = {each.event_id for each in deliveries(5, 500)}
    assert not ids & {each.event_id for each in deliveries(*other)}


@pytest.mark.parametrize("count", [1, 2, 500])
def test_the_requested_number_of_events_is_sent(count):
    assert len({each.event_id for each in deliveries(1, count)}) == count


def test_deliveries_are_generated_only_when_they_are_needed():
    assert len(list(islice(deliveries(1, 10**12), 100))) == 100


def test_each_delivery_carries_the_number_of_earlier_events(sent):
    seen = set()
    for number, each in enumerate(sent):
        assert (each.number, each.events_before) == (number, len(seen))
        seen.add(each.event_id)


def test_a_duplicate_has_the_same_content_but_sometimes_different_bytes(sent):
    bodies = defaultdict(list)
    for each in sent:
        bodies[each.event_id].append(each.body)
    repeated = [each for each in bodies.values() if len(each) > 1]
    assert len(repeated) > _MANY / 20
    for each in repeated:
        assert len({content_digest(decode_envelope(body)) for body in each}) == 1
    assert any(len(set(each)) > 1 for each in repeated)
    assert any(len(set(each)) < len(each) for each in repeated)
    assert any(len({tuple(json.loads(body)) for body in each}) > 1 for each in repeated)


def test_every_delivery_is_an_event_that_the_ledger_can_read(sent):
    now_ms = time.time_ns() // 1_000_000
    read = [decode_event(decode_envelope(each.body), 0, 0, now_ms, Reading()) for each in sent]
    assert {type(each) for each in read} == {Event, Unfolded}
    assert {each.marks for each in read if isinstance(each, Event)} == {()}


def test_many_refunds_arrive_before_their_payments_and_many_arrive_after_them(events):
    refunded_early = paid = 0
    succeeded = {event["data"]["id"] for event in events if event["type"] == "payment.succeeded"}
    seen = set()
    for event in events:
        if event["type"] == "payment.succeeded":
            seen.add(event["data"]["id"])
        names = [event["data"][name] for name in PAYMENT_FIELDS if name in event["data"]]
        if event["type"] == "refund.succeeded" and names and names[0] in succeeded:
            paid += names[0] in seen
            refunded_early += names[0] not in seen
    assert refunded_early > 50
    assert paid > 50


def test_references_to_orders_and_payments_occur_under_every_documented_name(events):
    of_refunds = [event["data"] for event in events if event["type"] == "refund.succeeded"]
    for name in PAYMENT_FIELDS:
        assert any(name in data for data in of_refunds), name
        alone = [
            data
            for data in of_refunds
            if name in data and not {*data, *data.get("metadata", {})} & {*ORDER_FIELDS}
        ]
        assert alone, name
    for name in ORDER_FIELDS:
        assert any(name in event["data"] for event in events), name
        assert any(name in event["data"].get("metadata", {}) for event in events), name


def test_the_events_have_all_kinds_of_amounts_and_currencies_and_types_and_ids(events):
    currencies = {event["data"]["currency"] for event in events}
    assert {"JPY", "KZT", "BHD"} <= currencies
    assert {0, 1, 2**53 - 1} <= {event["data"]["amount"] for event in events}
    types = {event["type"] for event in events}
    assert types > FOLDED_TYPES
    ids = "".join(event["id"] for event in events)
    assert all(each in ids for each in ("/", " ", "%", "?", "#", "ü", "日"))


def test_some_deliveries_have_a_wrong_clock_and_a_few_exceed_the_tolerance(sent):
    skews = [abs(each.skew) for each in sent]
    assert skews.count(0.0) > len(skews) / 2
    assert sum(0 < each < 1 for each in skews) > len(skews) / 10
    assert 10 < sum(each > 1 for each in skews) < len(skews) / 10


@pytest.mark.parametrize("amounts", PayAmounts)
def test_the_pay_dialect_has_every_status_and_one_id_for_all_deliveries_of_a_notification(amounts):
    sent = [
        each
        for each in deliveries(3, 1500, dialects=Dialects(sdk=False, pay=amounts))
        if each.is_pay
    ]
    ids = defaultdict(set)
    names = set()
    for each in sent:
        envelope = decode_notification(each.body, amounts)
        assert isinstance(envelope, PayEnvelope)
        ids[each.event_id].add(envelope.id)
        names.add(envelope.type.removeprefix("transaction."))
    assert names == {
        "authorized",
        "cancelled",
        "charged",
        "created",
        "failed",
        "refunded",
        "rejected",
    }
    assert all(len(each) == 1 for each in ids.values())
    assert len({key for keys in ids.values() for key in keys}) == len(ids) == 1500


def test_some_first_attempts_have_a_wrong_token_and_all_retries_have_the_right_token():
    options = SenderOptions(url="http://127.0.0.1", secrets=("s",), tokens=("right",))
    sent = list(deliveries(3, 1500, dialects=Dialects(sdk=False, pay=PayAmounts.MINOR)))
    for is_retry, wrong in ((False, True), (True, False)):
        given = {
            headers(each, options, secret="right", is_retry=is_retry)["Authorization"]
            for each in sent
        }
        assert ("Bearer right" in given, len(given) > 1) == (True, wrong)
