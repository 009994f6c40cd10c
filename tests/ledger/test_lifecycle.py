"""A rule set maps event types to kinds of fact, and each kind has a fixed effect on an order."""

import json

import pytest

from ledger.deduplication import deduplicate
from ledger.envelope import Envelope
from ledger.events import Event, FieldNames, Reading, Unfolded, decode_event
from ledger.journal import balances
from ledger.lifecycle import BUILT_IN, LIFECYCLE, PAY, SEED, Kind
from ledger.money import Money
from tests.ledger.lifecycle_events import fact
from tests.ledger.pipeline import Pipeline

LIFE = Reading(rules=LIFECYCLE)
CREATED = 1_795_900_000


def read(kind, data, reading=LIFE):
    given = {"id": "pay_1", "amount": 500, "currency": "KZT"} | data
    given = {name: value for name, value in given.items() if value is not None}
    envelope = Envelope("evt_1", kind, CREATED, given)
    return decode_event(envelope, 0, 0, CREATED * 1000, reading)


def told(*events):
    """Return an order's status, its totals, its anomalies, and the balances of the journal."""
    pipeline = Pipeline()
    pipeline.fold([list(events)])
    document = pipeline.documents()["ord_1"]
    totals = {
        name: getattr(document.totals[code], name)
        for code in document.totals
        for name in ("paid", "refunded", "disputed", "charged_back")
        if getattr(document.totals[code], name)
    }
    sums = {
        account: amount for (account, _), amount in balances(pipeline.entries).items() if amount
    }
    return document.status, totals, document.anomalies, sums


PAID = fact("succeeded", "evt_p", 1, 500)


# Rule sets.


def test_the_seed_rules_fold_only_the_published_types():
    facts = {name for name, kind in SEED.types.items() if kind is not Kind.INFORMATIONAL}
    assert facts == {"payment.succeeded", "payment.failed", "refund.succeeded"}


def test_the_digest_depends_on_the_rules_and_not_on_their_name():
    assert len({rules.digest for rules in BUILT_IN.values()}) == len(BUILT_IN)
    renamed = {**{f: getattr(SEED, f) for f in SEED.__struct_fields__}, "name": "other"}
    assert type(SEED)(**renamed).digest == SEED.digest


@pytest.mark.parametrize(
    ("name", "data", "kind"),
    [
        ("payment.authorized", {}, Kind.AUTHORISED),
        ("payment.captured", {}, Kind.CAPTURED),
        ("payment_intent.canceled", {}, Kind.VOIDED),
        ("refund.failed", {}, Kind.REFUND_REVERSED),
        ("refund.created", {"status": "succeeded"}, Kind.REFUNDED),
        ("charge.dispute.created", {}, Kind.DISPUTED),
        ("charge.dispute.closed", {"status": "won"}, Kind.DISPUTE_WON),
        ("charge.dispute.closed", {"status": "lost"}, Kind.DISPUTE_LOST),
        ("payment.succeeded", {"id": "cap_1", "payment_id": "pay_1"}, Kind.CAPTURED),
        ("payment.succeeded", {"payment_id": "pay_1"}, Kind.SUCCEEDED),
    ],
)
def test_the_kind_of_an_event_follows_from_its_type_status_and_payment(name, data, kind):
    event = read(name, data)
    assert isinstance(event, Event)
    assert (event.kind, event.payment_id) == (kind, "pay_1")


def test_a_type_or_a_status_that_states_nothing_is_unfolded():
    assert read("refund.created", {"status": "pending"}) == Unfolded("refund.created", known=True)
    odd = read("charge.dispute.closed", {"status": "who knows"})
    assert odd == Unfolded("charge.dispute.closed", known=False)
    assert read("charge.refunded", {}) == Unfolded("charge.refunded", known=False)


def test_an_amount_is_required_only_where_money_moves():
    for name in ("payment.canceled", "refund.failed", "dispute.won", "payment.authorized"):
        assert read(name, {"amount": None}).money is None
    assert read("payment.captured", {"amount": None}).reason == "amount_missing"
    assert read("dispute.created", {"amount": "much"}).reason == "amount_not_integer"


def test_a_captured_amount_is_preferred_to_the_authorised_one():
    event = read("charge.captured", {"amount": 900, "amount_captured": 400})
    assert event.money == Money(400, "KZT")


def test_the_payment_field_names_the_payment_of_any_event():
    reading = Reading(FieldNames(payment=("charge",)), LIFECYCLE)
    assert read("dispute.created", {"id": "dp_1", "charge": "ch_1"}, reading).payment_id == "ch_1"


def test_the_pay_rules_map_each_status_to_its_kind_of_fact():
    kinds = {name.rpartition(".")[2]: kind for name, kind in PAY.types.items()}
    assert kinds == {
        "authorized": "authorised", "cancelled": "voided", "charged": "succeeded",
        "created": "informational", "failed": "failed", "refunded": "refunded",
        "rejected": "failed",
    }  # fmt: skip


def test_the_progress_of_a_partition_contains_the_digest_of_the_rules():
    class Logged:
        key, partition, offset, timestamp = b"evt_1", 0, 0, CREATED * 1000
        headers = ()
        value = json.dumps(
            {"id": "evt_1", "type": "payment.captured", "created": CREATED, "data": {}}
        ).encode()

    assert deduplicate([Logged()], {}, LIFE).progress.rules == LIFECYCLE.digest
    assert deduplicate([Logged()], {}, Reading()).outcomes == ["unfolded.payment.captured"]


# The effect of facts on an order and its journal.

PLEXY, SALES = "assets:plexy", "income:sales"
DISPUTED, LOST = "assets:disputed", "expenses:chargebacks"


def back(event_id, created, kind="refunded", own="re_1", amount=200):
    return fact(kind, event_id, created, amount, own=own)


def taken(created, amount, own):
    return fact("captured", f"evt_{created}", created, amount, own=own)


def dispute(kind, created, own="dp_1", amount=500):
    return fact(kind, f"evt_{own}_{created}", created, amount, own=own)


@pytest.mark.parametrize(
    ("events", "status", "totals", "anomalies", "sums"),
    [
        ([fact("authorised")], "authorised", {}, (), {}),
        ([fact("authorised"), fact("voided", "evt_2", 2, None)], "voided", {}, (), {}),
        (
            [fact("authorised", amount=900), fact("captured", "evt_2", 2, 700)],
            "paid", {"paid": 700}, (), {PLEXY: 700, SALES: -700},
        ),
        ([PAID, fact("captured", "evt_2", 2, 300)], "paid", {"paid": 300}, (),
         {PLEXY: 300, SALES: -300}),
        (
            [taken(1, 300, "c_1"), taken(2, 700, "c_2"),
             back("evt_3", 3, amount=800)],
            "partially_refunded", {"paid": 1000, "refunded": 800}, (),
            {PLEXY: 200, SALES: -1000, "income:refunds": 800},
        ),
        (
            [fact("captured", "evt_1", 1, 300), fact("captured", "evt_2", 2, 300)],
            "paid", {"paid": 600}, ("capture_identity_uncertain",), {PLEXY: 600, SALES: -600},
        ),
        (
            [taken(1, 300, "c_1"), taken(2, 400, "c_1")],
            "paid", {"paid": 300}, ("conflicting_capture",), {PLEXY: 300, SALES: -300},
        ),
        (
            [fact("authorised", amount=100), fact("captured", "evt_2", 2, 101)],
            "paid", {"paid": 101}, ("capture_exceeds_authorisation",), {PLEXY: 101, SALES: -101},
        ),
        (
            [fact("voided", "evt_0", 1, None), PAID],
            "paid", {"paid": 500}, ("voided_and_paid",), {PLEXY: 500, SALES: -500},
        ),
        ([PAID, back("evt_2", 2), back("evt_3", 3, "refund_reversed", amount=None)],
         "paid", {"paid": 500}, (), {PLEXY: 500, SALES: -500}),
        ([PAID, back("evt_2", 4), back("evt_3", 3, "refund_reversed", amount=None)],
         "partially_refunded", {"paid": 500, "refunded": 200}, (),
         {PLEXY: 300, SALES: -500, "income:refunds": 200}),
        (
            [PAID, back("evt_2", 2), back("evt_3", 3, "refund_reversed"), back("evt_4", 4)],
            "paid", {"paid": 500}, ("refund_after_reversal",), {PLEXY: 500, SALES: -500},
        ),
        ([PAID, back("evt_2", 2, amount=500), back("evt_3", 3, "refund_reversed", amount=200)],
         "paid", {"paid": 500}, ("conflicting_refund",), {PLEXY: 500, SALES: -500}),
        (
            [PAID, back("evt_2", 2),
             fact("refund_reversed", "evt_3", 3, 200, own="re_1", currency="USD")],
            "paid", {"paid": 500}, ("conflicting_refund",), {PLEXY: 500, SALES: -500},
        ),
        ([PAID, back("evt_2", 2), back("evt_3", 3, own="pay_1")],
         "partially_refunded", {"paid": 500, "refunded": 400}, ("refund_identity_uncertain",),
         {PLEXY: 100, SALES: -500, "income:refunds": 400}),
        ([PAID, back("evt_2", 2), back("evt_3", 3, own="pay_1", amount=100)],
         "partially_refunded", {"paid": 500, "refunded": 300}, (),
         {PLEXY: 200, SALES: -500, "income:refunds": 300}),
        ([fact("authorised", "evt_a", 0, 400), PAID], "paid", {"paid": 500},
         ("capture_exceeds_authorisation",), {PLEXY: 500, SALES: -500}),
        ([fact("authorised", "evt_a", 0, 500, currency="USD"), PAID], "paid", {"paid": 500},
         ("currency_mismatch",), {PLEXY: 500, SALES: -500}),
        ([fact("authorised", "evt_a", 0, None), fact("authorised", "evt_b", 0, 900), PAID],
         "paid", {"paid": 500}, (), {PLEXY: 500, SALES: -500}),
        (
            [PAID, dispute("disputed", 2, "pay_1", 200), dispute("disputed", 3, "pay_1", 200)],
            "disputed", {"paid": 500, "disputed": 200}, ("conflicting_dispute",),
            {PLEXY: 300, SALES: -500, DISPUTED: 200},
        ),
        (
            [PAID, dispute("disputed", 2, "pay_1"), dispute("dispute_won", 3, "pay_1")],
            "paid", {"paid": 500}, (), {PLEXY: 500, SALES: -500},
        ),
        (
            [PAID, dispute("disputed", 2)],
            "disputed", {"paid": 500, "disputed": 500}, (), {SALES: -500, DISPUTED: 500},
        ),
        (
            [PAID, dispute("disputed", 2), dispute("dispute_won", 3, amount=None)],
            "paid", {"paid": 500}, (), {PLEXY: 500, SALES: -500},
        ),
        (
            [PAID, dispute("dispute_lost", 2)],
            "charged_back", {"paid": 500, "charged_back": 500}, (), {SALES: -500, LOST: 500},
        ),
        (
            [PAID, dispute("disputed", 2), dispute("dispute_won", 3), dispute("dispute_lost", 4)],
            "charged_back", {"paid": 500, "charged_back": 500}, ("conflicting_dispute",),
            {SALES: -500, LOST: 500},
        ),
        (
            [PAID, dispute("disputed", 2, amount=100), dispute("dispute_lost", 3, "dp_2", 50)],
            "disputed", {"paid": 500, "disputed": 100, "charged_back": 50}, (),
            {PLEXY: 350, SALES: -500, DISPUTED: 100, LOST: 50},
        ),
        (
            [PAID, back("evt_2", 2), dispute("disputed", 3)],
            "disputed", {"paid": 500, "refunded": 200, "disputed": 500},
            ("dispute_exceeds_payment",),
            {PLEXY: -200, SALES: -500, "income:refunds": 200, DISPUTED: 500},
        ),
        ([dispute("disputed", 2)], "disputed", {"disputed": 500}, ("dispute_without_payment",),
         {PLEXY: -500, DISPUTED: 500}),
        ([PAID, dispute("disputed", 2, amount=None)], "disputed", {"paid": 500},
         ("dispute_amount_missing",), {PLEXY: 500, SALES: -500}),
    ],
)  # fmt: skip
def test_the_facts_of_a_payment_have_the_same_effect_in_reverse_order(
    events, status, totals, anomalies, sums
):
    assert told(*events) == (status, totals, anomalies, sums)
    assert told(*reversed(events)) == (status, totals, anomalies, sums)


def test_money_in_another_currency_is_counted_separately_and_is_an_anomaly():
    foreign = fact("captured", "evt_2", 2, 9, own="c_2", currency="USD")
    assert told(fact("captured", "evt_1", 1, 5, own="c_1"), foreign)[2] == ("currency_mismatch",)
    assert told(PAID, fact("disputed", "evt_2", 2, 9, own="d", currency="USD"))[2] == (
        "currency_mismatch",
    )
