"""Any ``data`` is read as an event, an unfolded type, or a rejection with a reason."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.envelope import MAX_ID_BYTES, Envelope, decode_envelope
from ledger.events import (
    FOLDED_TYPES,
    PAYMENT_FAILED,
    PAYMENT_SUCCEEDED,
    REFUND_SUCCEEDED,
    Event,
    FieldNames,
    Unfolded,
    decode_event,
)
from ledger.money import MAX_AMOUNT_MINOR, Money
from ledger.rejections import Reason, Rejection
from tests.strategies import CONTROL_CHARACTERS, json_values

NAMES = FieldNames()
FIELDS = ("id", "amount", "currency", "status", "metadata", *NAMES.order, *NAMES.payment)
VALID = {"id": "pay_1", "amount": 500, "currency": "KZT"}
TOO_LONG = "x" * (MAX_ID_BYTES + 1)


def decode(data, kind=PAYMENT_SUCCEEDED, names=NAMES):
    return decode_event(Envelope("evt_1", kind, 7, data), 3, 42, names)


def order_of(**fields):
    return decode(VALID | fields).order_reference


def payment_of(**fields):
    return decode(VALID | fields, REFUND_SUCCEEDED).payment_reference


objects = st.dictionaries(st.sampled_from(FIELDS), json_values(), max_size=4)
changes = st.one_of(objects, objects.map(lambda held: {"metadata": held}))
kinds = st.sampled_from([*sorted(FOLDED_TYPES), "other"])


@settings(max_examples=300)
@given(kinds, st.booleans(), changes)
def test_no_json_under_any_name_raises(kind, is_valid_otherwise, changed):
    decoded = decode((VALID if is_valid_otherwise else {}) | changed, kind)
    match decoded:
        case Event():
            _assert_in_bounds(decoded)
        case Rejection():
            assert decoded.field.startswith("data.")
            assert decoded.detail.startswith(f"{decoded.field}: ")
        case _:
            assert decoded == Unfolded("other")


def _assert_in_bounds(event):
    assert type(event.money.amount_minor) is int
    assert 0 <= event.money.amount_minor <= MAX_AMOUNT_MINOR
    assert event.data_id
    for text in (event.data_id, event.order_reference, event.payment_reference):
        assert text is None or 0 < len(text.encode()) <= MAX_ID_BYTES


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("digits", [20, 4299, 4300, 4301, 100_000])
@pytest.mark.parametrize("sign", ["", "-"])
def test_a_number_of_any_length_in_a_body_raises_nothing(field, digits, sign):
    data = f'{{"id":"pay_1","amount":5,"currency":"KZT","{field}":{sign}{"9" * digits}}}'
    body = f'{{"id":"e","type":"refund.succeeded","created":1,"data":{data}}}'.encode()
    envelope = decode_envelope(body)
    if isinstance(envelope, Envelope):
        assert isinstance(decode_event(envelope, 0, 0, NAMES), Event | Rejection)


def test_an_event_has_the_fields_of_its_envelope_and_data():
    data = VALID | {"status": "refunded", "order_id": "ord_1", "payment_id": "pay_9"}
    assert decode(data, REFUND_SUCCEEDED) == Event(
        event_id="evt_1",
        type=REFUND_SUCCEEDED,
        created=7,
        data_id="pay_1",
        money=Money(500, "KZT"),
        status="refunded",
        order_reference="ord_1",
        payment_reference="pay_9",
        partition=3,
        offset=42,
    )


@pytest.mark.parametrize("kind", ["payment.created", "refund.failed", "", "Payment.Succeeded"])
def test_any_other_type_is_unfolded_whatever_its_data(kind):
    assert decode({"amount": -1.5}, kind) == Unfolded(kind)


@pytest.mark.parametrize("kind", sorted(FOLDED_TYPES))
@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("id", None, Reason.ID_MISSING),
        ("id", "", Reason.ID_MISSING),
        ("id", 7, Reason.ID_INVALID),
        ("id", False, Reason.ID_INVALID),
        ("id", {"id": "pay_1"}, Reason.ID_INVALID),
        ("id", TOO_LONG, Reason.REFERENCE_TOO_LONG),
        ("amount", None, Reason.AMOUNT_MISSING),
        ("amount", 5.0, Reason.AMOUNT_NOT_INTEGER),
        ("amount", "5", Reason.AMOUNT_NOT_INTEGER),
        ("amount", True, Reason.AMOUNT_NOT_INTEGER),
        ("amount", -1, Reason.AMOUNT_NEGATIVE),
        ("amount", MAX_AMOUNT_MINOR + 1, Reason.AMOUNT_TOO_LARGE),
        ("currency", None, Reason.CURRENCY_MISSING),
        ("currency", "kzt", Reason.CURRENCY_UNKNOWN),
        ("currency", 398, Reason.CURRENCY_UNKNOWN),
        ("orderId", TOO_LONG, Reason.REFERENCE_TOO_LONG),
    ],
)
def test_unusable_data_is_rejected_by_name_and_field(kind, field, value, reason):
    rejection = decode(VALID | {field: value}, kind)
    assert (rejection.reason, rejection.field) == (reason, f"data.{field}")


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        ("id", Reason.ID_MISSING),
        ("amount", Reason.AMOUNT_MISSING),
        ("currency", Reason.CURRENCY_MISSING),
    ],
)
def test_an_absent_field_is_missing(field, reason):
    data = {name: value for name, value in VALID.items() if name != field}
    assert decode(data).reason is reason


def test_a_rejection_quotes_only_a_few_characters_of_the_data():
    assert len(decode(VALID | {"currency": "x" * 10_000}).detail) < 120


@pytest.mark.parametrize("name", NAMES.order)
def test_an_order_is_found_under_each_of_its_names_in_data_and_in_metadata(name):
    assert order_of(**{name: "ord_1"}) == "ord_1"
    assert order_of(metadata={name: "ord_1"}) == "ord_1"


@pytest.mark.parametrize("name", NAMES.payment)
def test_a_refunds_payment_is_found_under_each_of_its_names_in_data_alone(name):
    assert payment_of(**{name: "pay_9"}) == "pay_9"
    assert payment_of(metadata={name: "pay_9"}) is None


@pytest.mark.parametrize("kind", [PAYMENT_SUCCEEDED, PAYMENT_FAILED])
def test_only_a_refund_names_another_payment(kind):
    event = decode(VALID | {"payment_id": "pay_9"}, kind)
    assert (event.payment_reference, event.payment_id) == (None, "pay_1")


def test_the_first_name_that_is_found_counts_and_data_precedes_metadata():
    assert order_of(order="last", merchantReference="first") == "first"
    assert order_of(order="data", metadata={"merchantReference": "metadata"}) == "data"
    assert order_of(metadata={"order": "last", "orderId": "first"}) == "first"
    assert payment_of(originalReference="last", payment_id="first") == "first"


def test_a_shop_can_choose_the_names():
    names = FieldNames(order=("bestellung", "№"), payment=("zahlung",))
    data = VALID | {"order_id": "no", "payment_id": "no", "№": "ord_1", "zahlung": "pay_9"}
    event = decode(data, REFUND_SUCCEEDED, names)
    assert (event.order_reference, event.payment_reference) == ("ord_1", "pay_9")
    nested = decode(VALID | {"metadata": {"bestellung": "ord_2", "№": "no"}}, names=names)
    assert nested.order_reference == "ord_2"


def test_without_names_there_are_no_references():
    names = FieldNames(order=(), payment=())
    event = decode(VALID | {"order_id": "o", "payment_id": "p"}, REFUND_SUCCEEDED, names)
    assert (event.order_reference, event.payment_reference) == (None, None)


@pytest.mark.parametrize(
    ("number", "text"), [(7, "7"), (0, "0"), (-7, "-7"), (10**30, f"{10**30}")]
)
def test_the_digits_of_a_number_are_a_reference(number, text):
    assert order_of(order_id=number) == text
    assert order_of(metadata={"order_id": number}) == text
    assert payment_of(payment=number) == text


@pytest.mark.parametrize("value", [None, "", True, False, 7.0, {}, {"id": "ord_1"}, [], ["ord_1"]])
def test_a_value_that_is_not_a_reference_is_skipped_for_the_next_name(value):
    assert order_of(order_id=value) is None
    assert order_of(order_id=value, order="ord_2") == "ord_2"
    assert order_of(order_id=value, metadata={"order_id": "ord_2"}) == "ord_2"
    assert payment_of(payment_id=value, payment="pay_9") == "pay_9"


@pytest.mark.parametrize("metadata", [None, "order_id", 7, ["order_id"], True])
def test_metadata_that_is_not_an_object_is_ignored(metadata):
    assert order_of(metadata=metadata) is None


@pytest.mark.parametrize("text", ["x" * MAX_ID_BYTES, "ü" * 256, "№ 3/b ?#%", " ", "0"])
def test_a_reference_is_any_text_up_to_the_bound_and_is_kept_as_it_is(text):
    event = decode(VALID | {"id": text, "order_id": text, "payment_id": text}, REFUND_SUCCEEDED)
    assert event.data_id == event.order_reference == event.payment_reference == text


@pytest.mark.parametrize("text", [TOO_LONG, "ü" * 257, "😀" * 129, 10**512])
@pytest.mark.parametrize(
    ("data", "field"),
    [
        (lambda text: {"order_id": text}, "data.order_id"),
        (lambda text: {"metadata": {"order": text}}, "data.metadata.order"),
        (lambda text: {"originalReference": text}, "data.originalReference"),
    ],
)
def test_a_reference_over_the_bound_in_bytes_is_rejected(text, data, field):
    rejection = decode(VALID | data(text), REFUND_SUCCEEDED)
    assert (rejection.reason, rejection.field) == (Reason.REFERENCE_TOO_LONG, field)


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (lambda text: {"id": text}, "data.id"),
        (lambda text: {"order_id": text}, "data.order_id"),
        (lambda text: {"metadata": {"order": text}}, "data.metadata.order"),
        (lambda text: {"originalReference": text}, "data.originalReference"),
    ],
)
def test_a_control_character_in_an_id_or_a_reference_is_rejected(data, field):
    for character in CONTROL_CHARACTERS:
        for text in (character, f"ord_{character}1", "x" * 500 + character):
            rejection = decode(VALID | data(text), REFUND_SUCCEEDED)
            assert (rejection.reason, rejection.field) == (Reason.CONTROL_CHARACTERS, field)
            assert rejection.detail.isprintable()


@pytest.mark.parametrize("status", [None, 7, {}, True, "x" * 513, "\N{EURO SIGN}" * 171])
def test_a_status_that_is_not_a_short_text_is_none(status):
    assert decode(VALID | {"status": status}).status is None


def test_a_fact_concerns_the_payment_that_it_names_or_else_its_own_id():
    assert decode(VALID, REFUND_SUCCEEDED).payment_id == "pay_1"
    assert decode(VALID | {"payment": "pay_9"}, REFUND_SUCCEEDED).payment_id == "pay_9"
