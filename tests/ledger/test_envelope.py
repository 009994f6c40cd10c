"""Any bytes are read as an envelope or as a rejection, and equal content has an equal digest."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.envelope import (
    MAX_ID_BYTES,
    Envelope,
    content_digest,
    decode_envelope,
    has_control_characters,
)
from ledger.json_values import MAX_NESTING, MalformedJsonError, decode_json
from ledger.rejections import Reason, Rejection
from tests.strategies import CONTROL_CHARACTERS

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters()), inner),
)
objects = st.dictionaries(st.text(max_size=5), json_values, max_size=4)
envelopes = st.builds(
    Envelope,
    id=st.text(
        st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=MAX_ID_BYTES // 4
    ),
    type=st.sampled_from(["payment.succeeded", "other"]),
    created=st.integers(0, 2**53 - 1),
    data=st.dictionaries(
        st.text(max_size=5),
        st.one_of(st.none(), st.integers(-(2**53), 2**53), st.text(max_size=5)),
        max_size=4,
    ),
)


def body_of(envelope: Envelope, **changes: object) -> bytes:
    fields = {name: getattr(envelope, name) for name in ("id", "type", "created", "data")}
    return json.dumps(fields | changes).encode()


@given(st.binary())
def test_no_bytes_raise_an_error(body):
    assert isinstance(decode_envelope(body), Envelope | Rejection)


@given(json_values)
def test_no_json_raises_an_error(value):
    assert isinstance(decode_envelope(json.dumps(value).encode()), Envelope | Rejection)


@given(envelopes, objects)
def test_no_object_in_the_shape_of_an_envelope_raises_an_error(envelope, changes):
    decoded = decode_envelope(body_of(envelope, data=changes))
    if isinstance(decoded, Envelope):
        assert len(content_digest(decoded)) == 16


@pytest.mark.parametrize("depth", [10, 900, 990, 1_000, 10_000, 200_000])
@pytest.mark.parametrize(("opened", "closed"), [("[", "]"), ('{"a":', "}")])
def test_no_depth_of_nesting_raises_an_error(depth, opened, closed):
    data = f'{{"a": {opened * depth}1{closed * depth}}}'
    decoded = decode_envelope(f'{{"id":"e","type":"t","created":1,"data":{data}}}'.encode())
    if isinstance(decoded, Rejection):
        assert decoded.reason is Reason.MALFORMED_JSON
    else:
        assert content_digest(decoded)


@pytest.mark.parametrize("where", ["data", "livemode", "more"])
@pytest.mark.parametrize(("depth", "kind"), [(MAX_NESTING, Envelope), (MAX_NESTING + 1, Rejection)])
def test_the_limit_on_nesting_is_the_same_in_every_field(where, depth, kind):
    """The decoder's own limit depends on the caller's stack, so it differs between programs."""
    value = '{"a":' * depth + '"]]}}[[{{\\"["' + "}" * depth
    fields = {"id": '"e"', "type": '"t"', "created": "1", "data": "{}"} | {where: value}
    body = "{" + ",".join(f'"{name}":{text}' for name, text in fields.items()) + "}"
    assert isinstance(decode_envelope(body.encode()), kind)


@given(json_values)
def test_brackets_in_a_string_do_not_count_as_nesting(value):
    text = json.dumps(json.dumps([value] * 70))
    body = b'{"id":"e","type":"t","created":1,"data":{"a":%b}}' % text.encode()
    assert isinstance(decode_envelope(body), Envelope)


@given(envelopes)
def test_an_envelope_is_read_as_it_was_written(envelope):
    assert decode_envelope(body_of(envelope)) == envelope


@given(envelopes)
def test_unknown_fields_change_nothing(envelope):
    assert decode_envelope(body_of(envelope, livemode=True, more=[1])) == envelope


@given(envelopes)
def test_the_sequence_of_the_fields_in_data_does_not_change_the_digest(envelope):
    data = dict(reversed(envelope.data.items()))
    again = Envelope(envelope.id, envelope.type, envelope.created, data)
    assert content_digest(again) == content_digest(envelope)


@given(envelopes, envelopes)
def test_different_content_has_a_different_digest(one, other):
    same = (one.type, one.created, one.data) == (other.type, other.created, other.data)
    assert (content_digest(one) == content_digest(other)) is same


@pytest.mark.parametrize("field", ["id", "type"])
def test_the_rejection_names_a_missing_field(field):
    whole = {"id": "evt_1", "type": "t", "created": 1, "data": {}}
    del whole[field]
    rejection = decode_envelope(json.dumps(whole).encode())
    assert (rejection.reason, rejection.field) == (Reason.INVALID_ENVELOPE, field)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", 7.5),
        ("id", True),
        ("id", 10**512),
        ("id", ""),
        ("id", "x" * (MAX_ID_BYTES + 1)),
        ("id", "ü" * (MAX_ID_BYTES // 2 + 1)),
        ("type", None),
        ("type", "ü" * (MAX_ID_BYTES // 2 + 1)),
        ("type", 7),
    ],
)
def test_the_rejection_names_a_field_with_an_unusable_value(field, value):
    whole = {"id": "evt_1", "type": "t", "created": 1, "data": {}}
    rejection = decode_envelope(json.dumps(whole | {field: value}).encode())
    assert (rejection.reason, rejection.field) == (Reason.INVALID_ENVELOPE, field)


@pytest.mark.parametrize("field", ["id", "type"])
@pytest.mark.parametrize("ensure_ascii", [True, False], ids=["escaped", "as bytes"])
def test_every_control_character_in_an_id_or_a_type_is_refused_as_a_control_character(
    field, ensure_ascii
):
    whole = {"id": "evt_1", "type": "t", "created": 1, "data": {}}
    for character in CONTROL_CHARACTERS:
        for text in (f"evt_{character}1", character, "x" * 500 + character):
            body = json.dumps(whole | {field: text}, ensure_ascii=ensure_ascii).encode()
            rejection = decode_envelope(body)
            assert (rejection.reason, rejection.field) == (Reason.CONTROL_CHARACTERS, field), body
            assert rejection.detail.isprintable()


def test_no_other_character_is_a_control_character():
    """The test tries neighbours of control characters, spaces, and other invisible characters."""
    for character in " ~\xa0\xad\u200b\u200e\u2028\u2029\u202e\ufeff\ufffe\ue000\U0010ffff":
        assert not has_control_characters(f"evt_{character}1")


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"id": "\\ud800"}'])
def test_a_body_that_is_not_json_is_malformed(body):
    assert decode_envelope(body).reason is Reason.MALFORMED_JSON


@pytest.mark.parametrize("field", ["created", "data"])
@pytest.mark.parametrize("value", [None, True, -1, 2**53, 1.5, "text", [], {}])
def test_any_time_and_any_data_are_accepted_because_the_worker_judges_them(field, value):
    whole = {"id": "evt_1", "type": "t", "created": 1, "data": {}}
    envelope = decode_envelope(json.dumps(whole | {field: value}).encode())
    assert getattr(envelope, field) == value
    del whole[field]
    assert getattr(decode_envelope(json.dumps(whole).encode()), field) is None


@pytest.mark.parametrize("number", [12345, 0, -7, 10**30, 10**511])
def test_an_integer_id_is_read_as_its_decimal_text(number):
    envelope = decode_envelope(b'{"id": %d, "type": "t", "created": 1, "data": {}}' % number)
    assert envelope == Envelope(str(number), "t", 1, {})


def test_a_byte_order_mark_is_skipped():
    body = b'{"id":"e","type":"t","created":1,"data":{}}'
    assert decode_envelope(b"\xef\xbb\xbf" + body) == decode_envelope(body)
    assert decode_envelope(2 * b"\xef\xbb\xbf" + body).reason is Reason.MALFORMED_JSON


@pytest.mark.parametrize("number", ["1e400", "-1e999999999999999999999", "9" * 5000])
@pytest.mark.parametrize("where", ['"x":%s', '"data":{"x":%s}', '"data":{"x":[{"y":%s}]}'])
def test_a_number_out_of_range_is_accepted_and_is_part_of_the_content(number, where):
    def read(number):
        body = '{"id":"e","type":"t","created":1,"data":{},' + where % number + "}"
        return decode_envelope(body.encode())

    one, other = read(number), read(f"{number[:-1]}8")
    assert (one.id, one.type, one.created) == ("e", "t", 1)
    assert (content_digest(one) == content_digest(other)) is (one.data == {})


@pytest.mark.parametrize(
    "rest", ['"\\ud800"', "NaN", "-Infinity", '"\n"', "01", '"a" "b"', "", "]"]
)
def test_a_number_out_of_range_does_not_make_other_faults_acceptable(rest):
    body = b'{"id":"e","type":"t","data":{"x":1e400,"y":%b}}' % rest.encode()
    assert decode_envelope(body).reason is Reason.MALFORMED_JSON


@given(json_values)
def test_a_number_out_of_range_does_not_change_how_a_value_next_to_it_is_read(value):
    text = json.dumps(value).encode()
    try:
        usual = decode_json(b"[0,%b]" % text)
    except MalformedJsonError:
        usual = None
    try:
        beside = decode_json(b"[1e400,%b]" % text)
    except MalformedJsonError:
        beside = None
    assert (usual and usual[1:]) == (beside and beside[1:])
