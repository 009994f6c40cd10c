"""A rule set maps event types to kinds of fact, and each kind has a fixed effect on an order."""

import json

import pytest

from ledger.deduplication import deduplicate
from ledger.envelope import Envelope
from ledger.events import Event, FieldNames, Reading, Unfolded, decode_event, named_by
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
    """Fold events; return the order's status, totals and anomalies, and the journal's balances."""
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


def test_the_seed_rules_fold_only_three_types_of_events():
    facts = {name for name, kind in SEED.types.items() if kind is not Kind.INFORMATIONAL}
    assert facts == {"payment.succeeded", "payment.failed", "refund.succeeded"}


def test_the_digest_of_a_rule_set_depends_on_its_rules_and_not_on_its_name():
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
        ("refund.updated", {"status": "COMPLETED"}, Kind.REFUNDED),
        ("charge.refund.updated", {"status": " Rejected"}, Kind.REFUND_REVERSED),
        ("dispute.closed", {"status": "Lost"}, Kind.DISPUTE_LOST),
        ("dispute.closed", {"status": "warning_closed"}, Kind.DISPUTE_WON),
        ("dispute.updated", {"status": "lost"}, Kind.DISPUTE_LOST),
        ("charge.dispute.updated", {"status": "WON"}, Kind.DISPUTE_WON),
        ("charge.dispute.created", {}, Kind.DISPUTED),
        ("charge.dispute.closed", {"status": "won"}, Kind.DISPUTE_WON),
        ("charge.dispute.closed", {"status": "lost"}, Kind.DISPUTE_LOST),
        ("payment.succeeded", {"id": "cap_1", "payment_id": "pay_1"}, Kind.CAPTURED),
        ("payment.succeeded", {"payment_id": "pay_1"}, Kind.SUCCEEDED),
    ],
)
def test_the_kind_of_an_event_depends_on_its_type_its_status_and_its_payment(name, data, kind):
    event = read(name, data)
    assert isinstance(event, Event)
    assert (event.kind, event.payment_id) == (kind, "pay_1")


@pytest.mark.parametrize(
    ("name", "status", "marked"),
    [
        ("payment.authorized", "Declined", True),
        ("payment.authorized", "captured", False),
        ("payment.voided", "captured", True),
        ("payment.voided", "authorized", False),
        ("refund.failed", "succeeded", True),
        ("refund.failed", "refunded", True),
        ("refund.failed", "failed", False),
        ("dispute.created", "lost", True),
        ("dispute.created", "needs_response", False),
        ("dispute.won", "lost", True),
        ("dispute.won", "won", False),
        ("dispute.lost", "WON", True),
        ("dispute.closed", "warning_closed", False),
    ],
)
def test_a_status_that_contradicts_a_type_of_the_lifecycle_is_marked(name, status, marked):
    expected = ("status_contradicts_type",) if marked else ()
    assert read(name, {"status": status}).marks == expected


def test_an_event_whose_type_or_status_states_no_fact_is_unfolded():
    for status in ("pending", "PENDING", "Requires-Action"):
        opened = read("refund.created", {"status": status})
        assert opened == Unfolded("refund.created", known=True)
    for status in ("needs_response", "under_review", None):
        updated = read("dispute.updated", {"status": status})
        assert updated == Unfolded("dispute.updated", known=True)
    for status in ("done", None, 7):
        unknown = read("refund.updated", {"status": status})
        assert unknown == Unfolded("refund.updated", known=False)
    odd = read("charge.dispute.closed", {"status": "who knows"})
    assert odd == Unfolded("charge.dispute.closed", known=False)
    assert read("charge.refunded", {}) == Unfolded("charge.refunded", known=False)


def test_an_amount_is_required_only_for_facts_that_move_money():
    for name in ("payment.canceled", "refund.failed", "dispute.won", "payment.authorized"):
        assert read(name, {"amount": None}).money is None
    assert read("payment.captured", {"amount": None}).reason == "amount_missing"
    assert read("dispute.created", {"amount": "much"}).reason == "amount_not_integer"


@pytest.mark.parametrize("kind", ["charge.captured", "payment.succeeded"])
@pytest.mark.parametrize(
    ("captured", "amount", "marks"),
    [
        ({"amount_captured": 400}, 400, ()),
        ({"amount_received": "400"}, 400, ()),
        ({"amountCaptured": 0}, 0, ()),
        ({"amountCaptured": {}, "capturedAmount": 400}, None, ()),
        ({"amount_captured": 400, "amountCaptured": "400"}, 400, ()),
        ({"amount_captured": 400, "capturedAmount": 500}, 400, ("conflicting_capture",)),
    ],
)
def test_a_captured_amount_is_preferred_to_the_authorised_amount(kind, captured, amount, marks):
    event = read(kind, {"amount": 900} | captured)
    if amount is None:
        assert event.reason == "amount_missing"
    else:
        assert (event.money, event.marks) == (Money(amount, "KZT"), marks)


def test_a_captured_amount_that_is_null_is_ignored():
    data = {"id": "pay_1", "amount": 900, "currency": "KZT", "amount_captured": None}
    envelope = Envelope("evt_1", "charge.captured", CREATED, data)
    event = decode_event(envelope, 0, 0, CREATED * 1000, LIFE)
    assert event.money == Money(900, "KZT")


def test_a_success_that_was_not_captured_is_an_authorisation():
    data = {"captured": False, "amount_captured": 0, "status": "succeeded"}
    event = read("charge.succeeded", data)
    assert (event.kind, event.money, event.marks) == (Kind.AUTHORISED, Money(500, "KZT"), ())
    assert read("charge.succeeded", {"captured": True}).kind is Kind.SUCCEEDED
    assert read("payment.succeeded", data, Reading()).kind is Kind.SUCCEEDED


def test_the_marks_of_an_event_are_sorted_and_each_mark_is_listed_once():
    data = {"merchantReference": "a", "orderId": "b", "status": "failed"}
    amounts = {"amount_captured": 1, "capturedAmount": 2}
    event = read("payment.succeeded", data | amounts)
    assert event.marks == ("conflicting_capture", "conflicting_order", "status_contradicts_type")


def test_the_configured_payment_field_is_read_in_events_of_every_type():
    reading = Reading(FieldNames(payment=("charge",)), LIFECYCLE)
    assert read("dispute.created", {"id": "dp_1", "charge": "ch_1"}, reading).payment_id == "ch_1"


@pytest.mark.parametrize(
    ("name", "data", "payment_id"),
    [
        ("payment.succeeded", {}, "pay_1"),
        ("payment.captured", {}, "pay_1"),
        ("payment.failed", {"payment_id": "pay_9"}, "pay_9"),
        ("payment.authorized", {"id": 7}, "7"),
        ("payment.succeeded", {"id": "null"}, "txn_1"),
        ("refund.succeeded", {}, "txn_1"),
        ("refund.failed", {}, "txn_1"),
        ("dispute.created", {}, "txn_1"),
    ],
)
def test_in_an_event_about_a_payment_a_transaction_id_counts_only_if_the_event_has_no_id(
    name, data, payment_id
):
    """Otherwise, a capture that also has the payment's id at the bank would be a second payment."""
    assert read(name, {"transactionId": "txn_1"} | data).payment_id == payment_id


@pytest.mark.parametrize(
    ("name", "payment_id"),
    [("payment.odd", "pay_1"), ("payment.updated", "pay_1"), ("refund.odd", "txn_1"),
     ("charge.dispute.odd", "txn_1")],
)  # fmt: skip
@pytest.mark.parametrize("reading", [LIFE, Reading()])
def test_the_note_of_an_unfolded_event_is_kept_under_the_payment_that_its_type_suggests(
    name, payment_id, reading
):
    envelope = Envelope("evt_1", name, CREATED, {"id": "pay_1", "transactionId": "txn_1"})
    assert named_by(envelope, CREATED * 1000, reading).payment_id == payment_id


def test_the_pay_rules_map_each_status_to_a_kind_of_fact():
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


# The effect of facts on an order and on the journal.

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
def test_the_facts_of_a_payment_have_the_expected_effect_in_sequence_and_in_reverse(
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
