"""A notification of the Pay API becomes an event, stays unfolded, or is rejected with a reason."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.deduplication import deduplicate
from ledger.dialects import pay_headers, read_envelope
from ledger.envelope import Envelope
from ledger.events import (
    Event,
    FieldNames,
    Named,
    Reading,
    Unfolded,
    decode_event,
    named_by,
)
from ledger.lifecycle import Kind
from ledger.money import Money
from ledger.pay import PayAmounts, PayEnvelope, decode_notification
from ledger.rejections import Reason, Rejection
from ledger.signature import SignatureFault
from ledger.trust import Trust
from ledger.verification.history import BEARER, NOT_CHECKED, Rules, deliveries
from ledger.verification.proof import LoggedRecord, check, make
from tests.ledger.pipeline import documents_of

MINOR, MAJOR = PayAmounts.MINOR, PayAmounts.MAJOR
ARRIVED_MS = 1_767_225_700_000
DATA = {
    "id": "txn_1",
    "type": "payment",
    "amount": 5000,
    "processedAmount": 4000,
    "balance": 4000,
    "currency": "KZT",
    "status": "charged",
    "merchantReference": "ord_1",
    "updatedAt": "2026-01-01T00:00:07Z",
    "cardTokenId": {"Value": "tok_1"},
    "customerId": {"Value": "cus_1"},
}


def body_of(name: str = "transaction.charged", /, **changes: Any) -> bytes:
    data = {key: value for key, value in (DATA | changes).items() if value is not ...}
    return json.dumps({"name": name, "merchantId": "123456", "data": data}).encode()


def logged(body: bytes, amounts: PayAmounts = MINOR, offset: int = 0) -> LoggedRecord:
    envelope = decode_notification(body, amounts)
    return LoggedRecord(
        partition=0,
        offset=offset,
        timestamp=ARRIVED_MS,
        key=envelope.id.encode() if isinstance(envelope, PayEnvelope) else b"k",
        value=body,
        headers=(*pay_headers(amounts), ("received-at-ms", b"%d" % ARRIVED_MS)),
    )


def read(body: bytes, amounts: PayAmounts = MINOR) -> Event | Rejection | str:
    """Return the event or the rejection, or the outcome if there is neither."""
    result = deduplicate([logged(body, amounts)], {}, Reading())
    return (
        next(iter([*result.events, *(each.rejection for each in result.rejected)]), None)
        or (result.outcomes[0])
    )


@pytest.mark.parametrize(
    ("name", "kind", "amount"),
    [
        ("authorized", Kind.AUTHORISED, 5000),
        ("charged", Kind.SUCCEEDED, 4000),
        ("cancelled", Kind.VOIDED, 5000),
        ("failed", Kind.FAILED, 5000),
        ("rejected", Kind.FAILED, 5000),
    ],
)
def test_each_transaction_status_is_read_as_a_kind_of_fact(name, kind, amount):
    event = read(body_of(f"transaction.{name}", status=name))
    assert (event.type, event.kind, event.money) == (
        f"transaction.{name}",
        kind,
        Money(amount, "KZT"),
    )
    assert (event.payment_id, event.order_reference) == ("txn_1", "ord_1")
    assert event.created == 1_767_225_607


def test_transaction_created_is_a_known_type_and_an_invented_type_is_unknown():
    created = decode_event(
        decode_notification(body_of("transaction.created", status="created"), MINOR),
        0,
        0,
        ARRIVED_MS,
        Reading(),
    )
    unknown = decode_event(
        decode_notification(body_of("transaction.sublimed", status="sublimed"), MINOR),
        0,
        0,
        ARRIVED_MS,
        Reading(),
    )
    assert isinstance(created, Unfolded)
    assert isinstance(unknown, Unfolded)
    assert (created.known, unknown.known) == (True, False)


@pytest.mark.parametrize("parent", ["txn_1", {"Value": "txn_1"}])
def test_a_refund_is_a_separate_transaction_whose_parent_is_the_payment(parent):
    body = body_of(
        "transaction.refunded",
        id="txn_2",
        type="refund",
        status="refunded",
        amount=700,
        processedAmount=700,
        parentTransactionId=parent,
        merchantReference=...,
    )
    event = read(body)
    assert (event.kind, event.data_id, event.payment_id) == (Kind.REFUNDED, "txn_2", "txn_1")
    assert event.money == Money(700, "KZT")


def test_a_refund_that_names_no_parent_is_rejected_because_its_id_may_be_the_payments_id():
    rejection = read(body_of("transaction.refunded", status="refunded"))
    assert (rejection.reason, rejection.field) == (Reason.ID_MISSING, "data.parentTransactionId")


@pytest.mark.parametrize(
    ("name", "kind"), [("failed", Kind.REFUND_REVERSED), ("cancelled", Kind.REFUND_REVERSED)]
)
def test_a_refund_that_fails_does_not_make_its_payment_fail(name, kind):
    event = read(
        body_of(
            f"transaction.{name}",
            id="txn_2",
            type="refund",
            status=name,
            parentTransactionId="txn_1",
        )
    )
    assert (event.kind, event.payment_id) == (kind, "txn_1")


REFUND = {"id": "txn_2", "type": "Refund", "parentTransactionId": "txn_1"}


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "refund"},
        REFUND,
        {"type": "payout"},
        {"type": "chargeback"},
        {"type": 7},
        REFUND | {"type": ...},
        REFUND | {"type": None},
        REFUND | {"type": "null"},
    ],
)
def test_a_charged_transaction_that_may_not_be_a_payment_is_shown_but_does_not_count(changes):
    assert read(body_of(**changes)) == "unfolded.transaction.charged"


@pytest.mark.parametrize("changes", [{}, {"type": None}, {"type": "PAYMENT "}, {"type": "sale"}])
@pytest.mark.parametrize("parent", [..., None, "", "txn_0"])
def test_a_transaction_is_a_payment_if_its_type_means_payment_or_it_has_no_type_and_no_parent(
    changes, parent
):
    event = read(body_of(parentTransactionId=parent, **changes))
    if parent == "txn_0" and changes == {"type": None}:
        assert event == "unfolded.transaction.charged"
    else:
        assert (event.kind, event.payment_id) == (Kind.SUCCEEDED, "txn_1")


@pytest.mark.parametrize("name", ["failed", "rejected", "cancelled"])
def test_only_the_type_distinguishes_a_failed_refund_from_a_failed_payment(name):
    assert read(body_of(f"transaction.{name}", **REFUND)).kind is Kind.REFUND_REVERSED
    unsure = read(body_of(f"transaction.{name}", **REFUND | {"type": None}))
    assert unsure == f"unfolded.transaction.{name}"


def test_without_a_processed_amount_the_whole_amount_counts_as_captured():
    assert read(body_of(processedAmount=...)).money == Money(5000, "KZT")
    assert read(body_of(processedAmount=None)).money == Money(5000, "KZT")


@pytest.mark.parametrize(
    ("written", "currency", "amount"),
    [
        ("1500.50", "KZT", 150050),
        ('"1500.50"', "KZT", 150050),
        ("1500", "KZT", 150000),
        ("1500.5", "KZT", 150050),
        ("1500.500", "KZT", 150050),
        ("1.5005e3", "KZT", 150050),
        ("0.1", "USD", 10),
        ("90071992547409.91", "USD", 2**53 - 1),
        ("7", "JPY", 7),
        ("7.00", "JPY", 7),
    ],
)
def test_an_amount_in_major_units_is_read_exactly(written, currency, amount):
    body = body_of(currency=currency, processedAmount="WRITTEN").replace(
        b'"WRITTEN"', written.encode()
    )
    assert read(body, MAJOR).money == Money(amount, currency)


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("1500.505", Reason.AMOUNT_TOO_PRECISE),
        ("90071992547409.92", Reason.AMOUNT_TOO_LARGE),
        ("1e400", Reason.AMOUNT_TOO_LARGE),
        ("1e99999999999999999999", Reason.AMOUNT_TOO_LARGE),
        ("1e-400", Reason.AMOUNT_TOO_PRECISE),
        ("-1", Reason.AMOUNT_NEGATIVE),
        ("-0.5", Reason.AMOUNT_NEGATIVE),
        ('"1 500.50"', Reason.AMOUNT_NOT_DECIMAL),
        ('"1,500.50"', Reason.AMOUNT_NOT_DECIMAL),
        ('"NaN"', Reason.AMOUNT_NOT_DECIMAL),
        ('"\u0661"', Reason.AMOUNT_NOT_DECIMAL),
        ("true", Reason.AMOUNT_NOT_INTEGER),
        ("[]", Reason.AMOUNT_NOT_INTEGER),
    ],
)
def test_an_amount_in_major_units_that_is_not_exact_or_not_a_number_is_rejected(written, reason):
    body = body_of(currency="KZT", processedAmount="WRITTEN").replace(
        b'"WRITTEN"', written.encode()
    )
    rejection = read(body, MAJOR)
    assert rejection.reason == reason


def test_the_same_number_is_a_different_amount_in_minor_and_in_major_units():
    assert read(body_of(processedAmount=150050)).money == Money(150050, "KZT")
    assert read(body_of(processedAmount=150050), MAJOR).money == Money(15005000, "KZT")
    assert read(body_of(processedAmount=1500.5)).reason == Reason.AMOUNT_TOO_PRECISE


@pytest.mark.parametrize("updated", [..., None, "", "yesterday", "2026-01-01", {}, True])
def test_a_notification_without_a_readable_time_is_rejected_with_the_reason(updated):
    assert read(body_of(updatedAt=updated)).reason == Reason.CREATED_UNREADABLE


@pytest.mark.parametrize(
    "updated",
    ["2026-01-01T00:00:07", "2026-01-01 00:00:07.25", "2026-01-01T05:00:07+05:00", 1767225607,
     1767225607.5, "1767225607.5", 1767225607500],
)  # fmt: skip
def test_a_time_that_has_no_zone_is_read_as_utc_and_a_number_is_read_as_unix_time(updated):
    event = read(body_of(updatedAt=updated))
    assert (event.created, event.marks) == (1_767_225_607, ())


def test_the_id_depends_only_on_the_name_and_transaction_and_time_of_a_notification():
    first = decode_notification(body_of(), MINOR).id
    assert first == decode_notification(body_of(description="new"), MINOR).id
    assert first == decode_notification(body_of(), MAJOR).id
    others = [
        body_of("transaction.failed"),
        body_of(id="txn_2"),
        body_of(updatedAt="2026-01-01T00:00:08Z"),
        body_of(updatedAt=...),
        # The digest also changes if text moves from one part of its input to the next part.
        body_of("transaction.charged txn_1", id="2026"),
    ]
    ids = {decode_notification(body, MINOR).id for body in others}
    assert len(ids | {first}) == 6
    assert all(len(each) < 64 for each in ids)


def test_a_numeric_transaction_id_is_read_as_its_decimal_text():
    assert read(body_of(id=17)).payment_id == "17"
    assert decode_notification(body_of(id=17), MINOR) == decode_notification(
        body_of(id="17"), MINOR
    )


@pytest.mark.parametrize("transaction", [..., None, "", True, 1.5, {}, "a\nb", "x" * 513])
def test_a_notification_without_a_valid_transaction_id_is_rejected(transaction):
    assert isinstance(decode_notification(body_of(id=transaction), MINOR), Rejection)


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.sampled_from(["transaction.charged", "txn_1", "KZT", "2026-01-01T00:00:07Z", "1e400"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["Value", "x", *DATA]), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(
    fields=st.dictionaries(
        st.sampled_from(["name", "data", "merchantId"]),
        JSON_VALUES | st.dictionaries(st.sampled_from([*DATA, "parentTransactionId"]), JSON_VALUES),
    )
    | st.fixed_dictionaries(
        {
            "name": st.sampled_from(["charged", "refunded", "failed", "created", "x"]).map(
                "transaction.{}".format
            ),
            "data": st.fixed_dictionaries(
                {"id": st.text() | st.just("txn_1")},
                optional=dict.fromkeys([*DATA, "parentTransactionId"][1:], JSON_VALUES),
            ),
        }
    ),
    amounts=st.sampled_from(PayAmounts),
)
def test_each_body_has_exactly_one_outcome_and_no_exception_is_raised(fields, amounts):
    record = logged(json.dumps(fields).encode(), amounts)
    result = deduplicate([record], {}, Reading())
    assert len(result.outcomes) == 1
    assert len(result.events) + len(result.rejected) <= 1
    assert deduplicate([record], {}, Reading()) == result


@given(body=st.binary(max_size=40), amounts=st.sampled_from(PayAmounts))
def test_no_bytes_raise_an_exception(body, amounts):
    assert isinstance(decode_notification(body, amounts), PayEnvelope | Rejection)


def test_a_record_without_dialect_headers_is_read_as_a_signed_event():
    record = msgspec.structs.replace(logged(body_of()), headers=())
    assert isinstance(read_envelope(record), Rejection)
    event = b'{"id": "evt_1", "type": "t", "created": 1, "data": {}}'
    signed = msgspec.structs.replace(record, value=event)
    assert type(read_envelope(signed)) is Envelope


@pytest.mark.parametrize(
    "headers",
    [
        [("dialect", b"pay")],
        [("dialect", b"pay"), ("amounts", b"cents"), ("authenticated-by", b"bearer")],
        [("dialect", b"pay"), ("amounts", b"minor"), ("authenticated-by", b"nobody")],
        [("dialect", None)],
    ],
)
def test_a_record_of_an_unknown_dialect_is_rejected_and_not_trusted(headers):
    record = msgspec.structs.replace(logged(body_of()), headers=tuple(headers))
    assert read_envelope(record).reason == Reason.INVALID_ENVELOPE
    trusting = Trust(secrets=(), expects_bearer=True)
    assert trusting.fault(record) in {"arrival_unknown", SignatureFault.MISSING}


def test_a_bearer_record_is_trusted_only_by_a_ledger_that_accepts_the_pay_api():
    record = logged(body_of())
    assert Trust(secrets=(), expects_bearer=True).fault(record) is None
    assert Trust(secrets=()).fault(record) == "bearer_not_expected"
    refused = deduplicate([record], {}, Reading(), trust=Trust(secrets=(b"s",)))
    assert refused.outcomes == ["rejected.signature_refused"]


@pytest.mark.parametrize("trust", [None, Trust(secrets=(b"s",), expects_bearer=True)])
def test_the_history_shows_bearer_instead_of_the_result_of_a_signature_check(trust):
    (told,) = deliveries([logged(body_of())], Rules(), trust)
    assert (told.signature, told.outcome, told.amount) == (BEARER, "folded", 4000)
    (untrusted,) = deliveries([logged(body_of())], Rules(), Trust(secrets=(b"s",)))
    assert untrusted.signature == "bearer_not_expected"
    assert NOT_CHECKED != BEARER


def test_a_proof_counts_bearer_deliveries_separately_from_good_signatures():
    proof = make([logged(body_of())], Rules(), "ord_1")
    checked = check(proof, Trust(secrets=(b"s",), expects_bearer=True))
    assert (checked.faults, checked.signatures, checked.bearer) == ((), 0, 1)
    assert check(proof, Trust(secrets=(b"s",))).faults


def test_payments_of_both_dialects_share_one_order():
    signed = b"""{"id": "evt_1", "type": "payment.succeeded", "created": 1767225600, "data":
        {"id": "pay_1", "amount": 100, "currency": "KZT", "merchantReference": "ord_1"}}"""
    records = [
        logged(body_of()),
        msgspec.structs.replace(
            logged(body_of()), key=b"evt_1", value=signed, headers=(), offset=1
        ),
    ]
    order = documents_of(deduplicate(records, {}, Reading()).events)["ord_1"]
    assert [each.payment_id for each in order.payments] == ["pay_1", "txn_1"]
    assert order.totals["KZT"].paid == 4100


def test_a_status_that_contradicts_the_name_is_marked_and_an_unknown_status_is_not_marked():
    assert read(body_of(status="failed")).marks == ("status_contradicts_type",)
    for name, status in (("authorized", "rejected"), ("cancelled", "charged")):
        event = read(body_of(f"transaction.{name}", status=status))
        assert event.marks == ("status_contradicts_type",)
    assert read(body_of(status="sublimed")).marks == ()
    assert read(body_of()).marks == ()


def test_the_payment_and_order_of_a_rejected_notification_are_read_from_the_pay_api_fields():
    data = {"id": "txn_2", "parentTransactionId": {"Value": "txn_1"}, "merchantReference": "ord_1"}
    body = msgspec.json.encode({"name": "transaction.refunded", "data": data})
    of_the_shop = Reading(FieldNames(order=("number",), payment=("belongs_to",)))
    envelope = decode_notification(body, PayAmounts.MINOR)
    assert isinstance(decode_event(envelope, 0, 0, 0, of_the_shop), Rejection)
    assert named_by(envelope, 7000, of_the_shop) == Named("txn_1", "ord_1", 7)
