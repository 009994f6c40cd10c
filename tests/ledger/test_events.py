"""Any ``data`` is read as an event, an unfolded type, or a rejection with a reason.

A mark (``Event.marks``) is an anomaly that is found while the event is read.
"""

import json

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
    Reading,
    Unfolded,
    decode_event,
)
from ledger.lifecycle import Kind
from ledger.money import MAX_AMOUNT_MINOR, Money
from ledger.rejections import Reason, Rejection
from tests.strategies import CONTROL_CHARACTERS, json_values

READING = Reading()
NAMES = READING.fields
FIELDS = ("id", "amount", "currency", "status", "metadata", *NAMES.order, *NAMES.payment)
VALID = {"id": "pay_1", "amount": 500, "currency": "KZT"}
TOO_LONG = "x" * (MAX_ID_BYTES + 1)
CREATED = 1_795_900_000
ARRIVED_MS = CREATED * 1000 + 500


def decode(data, kind=PAYMENT_SUCCEEDED, reading=READING):
    return decode_event(Envelope("evt_1", kind, CREATED, data), 3, 42, ARRIVED_MS, reading)


def order_of(**fields):
    return decode(VALID | fields).order_reference


def payment_of(**fields):
    return decode(VALID | fields, REFUND_SUCCEEDED).payment_reference


objects = st.dictionaries(st.sampled_from(FIELDS), json_values(), max_size=4)
changes = st.one_of(objects, objects.map(lambda held: {"metadata": held}))
kinds = st.sampled_from([*sorted(FOLDED_TYPES), "other"])


@settings(max_examples=300)
@given(kinds, st.booleans(), changes)
def test_no_json_value_in_any_field_of_data_raises_an_error(kind, is_valid_otherwise, changed):
    decoded = decode((VALID if is_valid_otherwise else {}) | changed, kind)
    match decoded:
        case Event():
            _assert_in_bounds(decoded)
        case Rejection():
            assert decoded.field.startswith("data.")
            assert decoded.detail.startswith(f"{decoded.field}: ")
        case _:
            assert decoded == Unfolded("other", known=False)


def _assert_in_bounds(event):
    if event.money is None:
        assert event.type == PAYMENT_FAILED
    else:
        assert type(event.money.amount_minor) is int
        assert 0 <= event.money.amount_minor <= MAX_AMOUNT_MINOR
    assert event.data_id
    for text in (event.data_id, event.order_reference, event.payment_reference):
        assert text is None or 0 < len(text.encode()) <= MAX_ID_BYTES


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("digits", [20, 4299, 4300, 4301, 100_000])
@pytest.mark.parametrize("sign", ["", "-"])
def test_a_number_of_any_length_in_a_body_raises_no_error(field, digits, sign):
    data = f'{{"id":"pay_1","amount":5,"currency":"KZT","{field}":{sign}{"9" * digits}}}'
    body = f'{{"id":"e","type":"refund.succeeded","created":1795900000,"data":{data}}}'.encode()
    envelope = decode_envelope(body)
    if isinstance(envelope, Envelope):
        assert isinstance(decode_event(envelope, 0, 0, ARRIVED_MS, READING), Event | Rejection)


def test_an_event_has_the_fields_of_its_envelope_and_data():
    data = VALID | {"status": "refunded", "order_id": "ord_1", "payment_id": "pay_9"}
    assert decode(data, REFUND_SUCCEEDED) == Event(
        event_id="evt_1",
        type=REFUND_SUCCEEDED,
        created=CREATED,
        data_id="pay_1",
        money=Money(500, "KZT"),
        status="refunded",
        order_reference="ord_1",
        payment_reference="pay_9",
        partition=3,
        offset=42,
        kind=Kind.REFUNDED,
    )


@pytest.mark.parametrize("kind", ["payment.captured", "refund.failed", "", "Payment.Succeeded"])
def test_an_event_of_an_unknown_type_is_unfolded_whatever_its_data_is(kind):
    assert decode({"amount": -1.5}, kind) == Unfolded(kind, known=False)


def test_an_event_of_an_informational_type_is_unfolded_and_its_type_counts_as_known():
    assert decode({}, "payment.created") == Unfolded("payment.created", known=True)


@pytest.mark.parametrize("kind", sorted(FOLDED_TYPES))
@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("id", None, Reason.ID_MISSING),
        ("id", "", Reason.ID_MISSING),
        ("id", False, Reason.ID_INVALID),
        ("id", {"id": "pay_1"}, Reason.ID_INVALID),
        ("id", TOO_LONG, Reason.REFERENCE_TOO_LONG),
    ],
)
def test_an_unusable_id_is_rejected_with_the_reason_and_the_field(kind, field, value, reason):
    rejection = decode(VALID | {field: value}, kind)
    assert (rejection.reason, rejection.field) == (reason, f"data.{field}")


@pytest.mark.parametrize("kind", [PAYMENT_SUCCEEDED, REFUND_SUCCEEDED])
@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("amount", None, Reason.AMOUNT_MISSING),
        ("amount", 5.5, Reason.AMOUNT_NOT_INTEGER),
        ("amount", True, Reason.AMOUNT_NOT_INTEGER),
        *[
            ("amount", text, Reason.AMOUNT_NOT_INTEGER)
            for text in ("", "50.00", "-5", "\u0665", " 5")
        ],
        ("amount", -1, Reason.AMOUNT_NEGATIVE),
        *[
            ("amount", most, Reason.AMOUNT_TOO_LARGE)
            for most in (MAX_AMOUNT_MINOR + 1, 1e300, "9" * 4000)
        ],
        ("amount", {"currency": "KZT"}, Reason.AMOUNT_MISSING),
        ("amount", {"value": {"value": 5}}, Reason.AMOUNT_NOT_INTEGER),
        ("currency", None, Reason.CURRENCY_MISSING),
        *[
            ("currency", code, Reason.CURRENCY_UNKNOWN)
            for code in ("", "KZT ", "398", 398, "kzτ", "XXX", "XAU")
        ],
    ],
)
def test_unusable_money_is_rejected_with_the_reason_and_the_field(kind, field, value, reason):
    rejection = decode(VALID | {field: value}, kind)
    assert (rejection.reason, rejection.field) == (reason, f"data.{field}")


def test_an_amount_whose_own_currency_differs_from_the_currency_of_the_event_is_rejected():
    rejection = decode(VALID | {"amount": {"value": 5, "currency": "USD"}})
    assert (rejection.reason, rejection.field) == (Reason.CURRENCY_CONFLICTS, "data.currency")


@pytest.mark.parametrize(
    "amount", [500, 500.0, "500", "00500", {"value": "500", "currency": "Kzt"}]
)
@pytest.mark.parametrize("currency", ["KZT", "kzt", "Kzt"])
def test_an_amount_and_a_currency_are_read_in_every_unambiguous_form(amount, currency):
    assert decode(VALID | {"amount": amount, "currency": currency}).money == Money(500, "KZT")


@pytest.mark.parametrize("code", ["BGN", "HRK", "LTL", "zmk"])
def test_a_currency_that_iso_4217_has_withdrawn_still_counts(code):
    assert decode(VALID | {"currency": code}).money == Money(500, code.upper())


@pytest.mark.parametrize("changed", [{"amount": None}, {"currency": None}, {"amount": "?"}])
def test_a_failed_payment_counts_even_without_a_usable_amount_or_currency(changed):
    assert decode(VALID | changed, PAYMENT_FAILED).money is None
    assert decode(VALID, PAYMENT_FAILED).money == Money(500, "KZT")


@pytest.mark.parametrize("number", [7, 1004723697, 10**30, -7])
def test_an_integer_id_is_read_as_its_decimal_text(number):
    refund = decode(VALID | {"id": number, "payment_id": number}, REFUND_SUCCEEDED)
    assert decode(VALID | {"id": number}).payment_id == refund.payment_id == str(number)


@pytest.mark.parametrize("absent", [{}, {"id": None}, {"id": ""}, {"id": "undefined"}])
def test_a_refund_that_has_no_id_gets_the_id_of_its_payment(absent):
    data = {"amount": 5, "currency": "KZT", "payment_id": "pay_9", **absent}
    assert decode(data, REFUND_SUCCEEDED).data_id == "pay_9"
    assert decode(data).reason is Reason.ID_MISSING


@pytest.mark.parametrize("data", [None, [], "text", 7, True])
def test_data_that_is_not_an_object_is_rejected_with_the_reason(data):
    rejection = decode(data)
    assert (rejection.reason, rejection.field) == (Reason.DATA_UNREADABLE, "data")


def read_at(created, arrived_s=CREATED):
    envelope = Envelope("evt_1", PAYMENT_SUCCEEDED, created, VALID)
    return decode_event(envelope, 3, 42, arrived_s * 1000, READING)


@pytest.mark.parametrize("created", [None, True, "", "yesterday", "2026-11-29T10:00:00", [], {}])
def test_an_unreadable_or_ambiguous_time_is_rejected(created):
    rejection = read_at(created)
    assert (rejection.reason, rejection.field) == (Reason.CREATED_UNREADABLE, "created")


@pytest.mark.parametrize(
    "created", [0, 1, -5, 946_684_799, "1999-12-31T23:59:59Z", CREATED + 86_401, CREATED * 10**6]
)
def test_an_event_with_an_implausible_time_gets_the_time_of_its_arrival(created):
    event = read_at(created)
    assert (event.created, event.marks) == (CREATED, ("time_implausible",))


@pytest.mark.parametrize("created", [946_684_800, "2000-01-01T00:00:00Z", CREATED + 86_400])
def test_a_time_from_2000_until_one_day_after_the_arrival_is_plausible(created):
    assert read_at(created).marks == ()


@pytest.mark.parametrize(
    ("kind", "status", "marked"),
    [
        (PAYMENT_SUCCEEDED, "pending", True),
        (PAYMENT_SUCCEEDED, "FAILED", True),
        (PAYMENT_SUCCEEDED, "Requires Action", True),
        (PAYMENT_SUCCEEDED, "succeeded", False),
        (PAYMENT_SUCCEEDED, "refunded", False),
        (PAYMENT_SUCCEEDED, "a status of next year", False),
        (PAYMENT_FAILED, "succeeded", True),
        (PAYMENT_FAILED, "requires_payment_method", False),
        (REFUND_SUCCEEDED, "failed", True),
        (REFUND_SUCCEEDED, "succeeded", False),
    ],
)
def test_a_status_is_marked_only_if_it_contradicts_the_type(kind, status, marked):
    expected = ("status_contradicts_type",) if marked else ()
    assert decode(VALID | {"status": status}, kind).marks == expected


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        ("id", Reason.ID_MISSING),
        ("amount", Reason.AMOUNT_MISSING),
        ("currency", Reason.CURRENCY_MISSING),
    ],
)
def test_an_absent_field_is_reported_as_missing(field, reason):
    data = {name: value for name, value in VALID.items() if name != field}
    assert decode(data).reason is reason


def test_a_rejection_quotes_only_a_few_characters_of_the_data():
    assert len(decode(VALID | {"currency": "x" * 10_000}).detail) < 120


@pytest.mark.parametrize("name", READING.fields.order)
def test_the_reference_of_an_order_is_found_in_each_configured_field_of_data_and_metadata(name):
    assert order_of(**{name: "ord_1"}) == "ord_1"
    assert order_of(metadata={name: "ord_1"}) == "ord_1"


@pytest.mark.parametrize("name", READING.fields.payment)
def test_the_payment_of_a_refund_is_found_in_each_configured_field_of_data_but_not_of_metadata(
    name,
):
    assert payment_of(**{name: "pay_9"}) == "pay_9"
    assert payment_of(metadata={name: "pay_9"}) is None


@pytest.mark.parametrize("kind", [PAYMENT_SUCCEEDED, PAYMENT_FAILED])
def test_a_payment_reference_in_an_event_about_a_payment_is_ignored(kind):
    event = decode(VALID | {"payment_id": "pay_9"}, kind)
    assert (event.payment_reference, event.payment_id) == (None, "pay_1")


def test_the_first_configured_field_that_is_found_counts_and_data_precedes_metadata():
    assert order_of(order="last", merchantReference="first") == "first"
    assert order_of(order="data", metadata={"merchantReference": "metadata"}) == "data"
    assert order_of(metadata={"order": "last", "orderId": "first"}) == "first"
    assert payment_of(originalReference="last", payment_id="first") == "first"


@pytest.mark.parametrize(
    ("second", "marks"),
    [
        ({"originalReference": "pay_8"}, ("conflicting_order",)),
        ({"payment": {"id": "pay_8"}}, ("conflicting_order",)),
        ({"originalPspReference": "pay_9"}, ()),
        ({"payment": "null"}, ()),
        ({"transactionId": "txn_1"}, ()),
    ],
)
def test_two_fields_that_name_different_payments_are_marked_and_the_first_payment_counts(
    second, marks
):
    refund = decode(VALID | {"payment_id": "pay_9"} | second, REFUND_SUCCEEDED)
    assert (refund.payment_reference, refund.marks) == ("pay_9", marks)


def test_the_names_of_the_fields_that_have_references_can_be_configured():
    reading = Reading(FieldNames(order=("bestellung", "№"), payment=("zahlung",)))
    data = VALID | {"order_id": "no", "payment_id": "no", "№": "ord_1", "zahlung": "pay_9"}
    event = decode(data, REFUND_SUCCEEDED, reading)
    assert (event.order_reference, event.payment_reference) == ("ord_1", "pay_9")
    nested = decode(VALID | {"metadata": {"bestellung": "ord_2", "№": "no"}}, reading=reading)
    assert nested.order_reference == "ord_2"


def test_without_configured_fields_no_reference_is_read():
    reading = Reading(FieldNames(order=(), payment=()))
    event = decode(VALID | {"order_id": "o", "payment_id": "p"}, REFUND_SUCCEEDED, reading)
    assert (event.order_reference, event.payment_reference) == (None, None)


@pytest.mark.parametrize(
    ("number", "text"), [(7, "7"), (0, "0"), (-7, "-7"), (10**30, f"{10**30}")]
)
def test_a_number_is_read_as_a_reference_with_the_same_digits(number, text):
    assert order_of(order_id=number) == text
    assert order_of(metadata={"order_id": number}) == text
    assert payment_of(payment=number) == text


@pytest.mark.parametrize(
    "value", [{"id": "ord_1"}, {"id": 7, "x": 1}, ["ord_1"], ["o", {"id": "o"}]]
)
def test_an_object_is_read_as_its_id_and_a_list_is_read_as_its_only_element(value):
    expected = {"ord_1": "ord_1", "7": "7", "o": "o"}
    assert order_of(order=value) in expected
    assert payment_of(payment=value) == order_of(order=value)


UNREADABLE = [
    "",
    " \t",
    "undefined",
    "NULL",
    "None",
    "nan",
    "[object Object]",
    " undefined          ",
    True,
    7.5,
    {},
    TOO_LONG,
]


@pytest.mark.parametrize("value", [*UNREADABLE, {"id": {}}, ["ord_1", "ord_2"], [{"id": ""}]])
def test_a_field_that_is_present_but_has_no_readable_reference_is_marked(value):
    for data in ({"order_id": value}, {"metadata": {"order_id": value}}):
        event = decode(VALID | data)
        assert (event.order_reference, event.marks) == (None, ("order_reference_unreadable",))


@pytest.mark.parametrize(
    "orders",
    [
        ["a", "b"],
        [{"order_id": "a"}, {"order_id": "b"}],
        [{"id": "a"}, {"order_id": "b"}],
        ["a", {"id": "b"}],
        [7.5],
        {"order_id": "a"},
    ],
)
def test_a_list_of_orders_that_does_not_have_exactly_one_id_is_marked(orders):
    for data in ({"orders": orders}, {"metadata": {"orders": orders}}):
        event = decode(VALID | data)
        assert (event.order_reference, event.marks) == (None, ("order_reference_unreadable",))


def test_a_number_in_the_field_orders_is_not_an_order_reference():
    event = decode(VALID | {"orders": 3})
    assert (event.order_reference, event.marks) == (None, ())


@pytest.mark.parametrize(
    ("other", "marks"),
    [
        ({"merchantReference": ["a", "b"]}, ("order_reference_unreadable",)),
        ({"metadata": {"orders": [{"id": "a"}, {"id": "b"}]}}, ("order_reference_unreadable",)),
        ({"orderId": {"number": 7}}, ("order_reference_unreadable",)),
        ({"orderId": TOO_LONG}, ("order_reference_unreadable",)),
        ({"orderId": ["a", "b"], "order": "other"},
         ("conflicting_order", "order_reference_unreadable")),
        ({"merchantReference": "undefined"}, ()),
        ({"metadata": {"order_id": " "}}, ()),
        ({"orderId": {"id": None}}, ("order_reference_unreadable",)),
    ],
)  # fmt: skip
def test_an_unusable_field_is_marked_even_next_to_a_usable_field_but_a_placeholder_is_not(
    other, marks
):
    event = decode(VALID | {"orderReference": "ord_1"} | other)
    assert (event.order_reference, event.marks) == ("ord_1", marks)


@pytest.mark.parametrize("value", [None, [], [None]])
def test_a_field_that_has_no_value_is_not_marked(value):
    assert decode(VALID | {"order_id": value}).marks == ()


def test_two_fields_that_name_different_orders_are_marked_and_the_first_order_counts():
    event = decode(VALID | {"merchantReference": "one", "metadata": {"order_id": "two"}})
    assert (event.order_reference, event.marks) == ("one", ("conflicting_order",))
    assert decode(VALID | {"order_id": 7, "metadata": {"order": {"id": "7"}}}).marks == ()


@pytest.mark.parametrize(
    "data",
    [
        {"orderDetails": {"orderReference": "ord_1"}},
        {"orderDetails": [{"orderReference": "ord_1"}, {"other": 1}]},
        {"metadata": {"orders": [{"id": "ord_1"}]}},
        {"metadata": {"orders": ["ord_1"]}},
        {"orders": ["ord_1", {"id": "ord_1"}]},
        {"orders": {"id": "ord_1"}},
        {"orderDetails": '{"orderReference": "ord_1"}'},
        {"metadata": '{"orders": [{"id": "ord_1"}]}'},
        {"metadata": [{"order_id": "ord_1"}, {"other": 1}]},
        {"metadata": '[{"order_id": "ord_1"}]'},
        {"metadata": json.dumps(json.dumps({"order_id": "ord_1"}))},
        {"metadata": '{"order_id": "ord_1", "x": 1e400}'},
        {"metadata": '{"orderDetails": {"orderReference": "ord_1"}}'},
    ],
)
def test_an_order_reference_is_found_along_a_path_and_inside_a_string_of_json(data):
    event = decode(VALID | data)
    assert (event.order_reference, event.marks) == ("ord_1", ())


def test_a_path_can_lead_into_metadata_that_is_a_string_of_json():
    reading = Reading(FieldNames(order=("metadata.shop.ref",), payment=("metadata.pid",)))
    data = VALID | {"metadata": '{"shop": {"ref": "ord_1"}, "pid": "pay_9"}'}
    event = decode(data, REFUND_SUCCEEDED, reading)
    assert (event.order_reference, event.payment_reference) == ("ord_1", "pay_9")


def test_a_configured_name_with_dots_may_be_a_path_or_the_name_of_a_single_field():
    reading = Reading(FieldNames(order=("a.b",), payment=("c.d.e",)))
    assert (
        decode(VALID | {"a.b": "flat", "a": {"b": "deep"}}, reading=reading).order_reference
        == "flat"
    )
    refund = decode(VALID | {"c": {"d": {"e": 7}}}, REFUND_SUCCEEDED, reading)
    assert refund.payment_reference == "7"


@pytest.mark.parametrize("value", [None, "", True, False, 7.5, {}, []])
def test_a_field_whose_value_is_not_a_reference_is_skipped_and_the_next_field_is_read(value):
    assert order_of(order_id=value) is None
    assert order_of(order_id=value, order="ord_2") == "ord_2"
    assert order_of(order_id=value, metadata={"order_id": "ord_2"}) == "ord_2"
    assert payment_of(payment_id=value, payment="pay_9") == "pay_9"


@pytest.mark.parametrize(
    "metadata", [None, "order_id", 7, ["order_id"], True, '"VIP"', "7", "[]", "{}", ""]
)
def test_metadata_that_is_not_an_object_is_ignored(metadata):
    event = decode(VALID | {"metadata": metadata})
    assert (event.order_reference, event.marks) == (None, ())


@pytest.mark.parametrize(
    "text",
    [
        '{"order_id": "q", "items": [{"na',
        '{"order_id": "q", "x": NaN}',
        " {'order_id': 'q'}",
        '{"order_id": "\\ud83d"}',
        '{"x": ' + "[" * 80 + "]" * 80 + "}",
        '[{"order_id": "q"',
    ],
)
def test_a_string_that_looks_like_json_but_is_not_json_is_marked(text):
    event = decode(VALID | {"metadata": text})
    assert (event.order_reference, event.marks) == (None, ("order_reference_unreadable",))
    assert decode(VALID | {"metadata": text, "orderId": "ord_1"}).marks == ()
    details = decode(VALID | {"orderDetails": text, "orderId": "ord_1"})
    assert details.marks == ("order_reference_unreadable",)


@pytest.mark.parametrize("text", ["x" * MAX_ID_BYTES, "ü" * 256, "№ 3/b ?#%", " lead", "0"])
def test_a_reference_may_be_any_text_up_to_the_size_limit_and_is_kept_unchanged(text):
    event = decode(VALID | {"id": text, "order_id": text, "payment_id": text}, REFUND_SUCCEEDED)
    assert event.data_id == event.order_reference == event.payment_reference == text


@pytest.mark.parametrize("text", [TOO_LONG, "ü" * 257, "😀" * 129, 10**512])
@pytest.mark.parametrize(
    ("data", "field"),
    [
        (lambda text: {"originalReference": text}, "data.originalReference"),
        (lambda text: {"payment": {"id": text}}, "data.payment"),
    ],
)
def test_a_reference_of_more_bytes_than_the_limit_is_rejected(text, data, field):
    rejection = decode(VALID | data(text), REFUND_SUCCEEDED)
    assert (rejection.reason, rejection.field) == (Reason.REFERENCE_TOO_LONG, field)


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (lambda text: {"id": text}, "data.id"),
        (lambda text: {"originalReference": text}, "data.originalReference"),
        (lambda text: {"payment": {"id": text}}, "data.payment"),
    ],
)
def test_a_control_character_in_an_id_or_a_payment_reference_is_rejected(data, field):
    for character in CONTROL_CHARACTERS:
        for text in (f"ord_{character}1", "x" * 500 + character):
            rejection = decode(VALID | data(text), REFUND_SUCCEEDED)
            assert (rejection.reason, rejection.field) == (Reason.CONTROL_CHARACTERS, field)
            assert rejection.detail.isprintable()


@pytest.mark.parametrize("character", CONTROL_CHARACTERS)
def test_an_order_reference_keeps_its_control_characters(character):
    """A rejection would lose the event's money; a replaced character would change the order."""
    assert order_of(order_id=f"{character}x") == f"{character}x"


@pytest.mark.parametrize("status", [None, 7, {}, True, "x" * 513, "\N{EURO SIGN}" * 171])
def test_a_status_that_is_not_a_short_text_is_read_as_none(status):
    assert decode(VALID | {"status": status}).status is None


def test_a_fact_that_names_no_payment_belongs_to_the_payment_with_the_facts_own_id():
    assert decode(VALID, REFUND_SUCCEEDED).payment_id == "pay_1"
    assert decode(VALID | {"payment": "pay_9"}, REFUND_SUCCEEDED).payment_id == "pay_9"
