"""Records of the log are built from a request's head and body."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.records import DeliveryHead, json_object, readable_event_id, rejected_delivery_record
from ledger.rejections import Reason, Rejection
from ledger.topics import TopicNames


def delivery(*headers: tuple[bytes, bytes]) -> DeliveryHead:
    return DeliveryHead.of(headers, received_at_ms=1700000000123)


def test_the_headers_that_ingress_needs_are_read_from_the_head():
    read = delivery(
        (b"content-type", b"application/json"),
        (b"plexy-signature", b"t=1"),
        (b"content-length", b"7"),
    )
    assert read == DeliveryHead(b"t=1", b"application/json", 7, 1700000000123)


def test_missing_headers_are_empty_and_the_length_is_unknown():
    assert delivery((b"host", b"x")) == DeliveryHead(b"", b"", None, 1700000000123)


def test_headers_that_are_repeated_with_different_values_are_joined():
    read = delivery((b"plexy-signature", b"a"), (b"plexy-signature", b"b"))
    assert read.signature == b"a,b"


def test_headers_that_are_repeated_with_the_same_value_are_read_once():
    read = delivery(*2 * [(b"plexy-signature", b"a")], *2 * [(b"content-type", b"text/json")])
    assert (read.signature, read.content_type) == (b"a", b"text/json")


@pytest.mark.parametrize(
    ("content_type", "is_json"),
    [
        (b"application/json", True),
        (b"APPLICATION/JSON ; charset=utf-8", True),
        (b"application/json, application/json", False),
        (b"application/problem+json", True),
        (b"text/json", False),
        (b"application/json+xml", False),
        (b"", True),
    ],
)
def test_json_is_recognized_by_the_media_type(content_type, is_json):
    assert delivery((b"content-type", content_type)).is_json is is_json


def test_a_rejected_delivery_is_kept_with_the_reason_and_the_source():
    rejection = Rejection(reason=Reason.INVALID_ENVELOPE, detail="expected `id`", field="id")
    head = delivery((b"plexy-signature", b"t=1"), (b"content-type", b"application/json"))
    record = rejected_delivery_record(TopicNames("a."), head, b"{}", rejection, "evt_1")
    assert (record.topic, record.key, record.value) == ("a.plexy.rejected", b"evt_1", b"{}")
    assert record.headers == [
        ("plexy-signature", b"t=1"),
        ("received-at-ms", b"1700000000123"),
        ("content-type", b"application/json"),
        ("reason", b"invalid_envelope"),
        ("detail", b"expected `id`"),
        ("source-topic", b"http"),
    ]


@pytest.mark.parametrize(
    ("body", "event_id"),
    [
        (b'{"id": "evt_1"}', "evt_1"),
        (b'{"id": "\\u00fc", "created": "no", "data": 3}', "ü"),
        (b'{"id": ""}', None),
        (b'{"id": 1}', "1"),
        (b'{"id": 1.5}', None),
        (b'{"id": "a"', None),
        (b'["id"]', None),
        (b"", None),
        (b"\xff", None),
        (b'{"id": "\\ud800"}', None),
        (b'{"a":' * 100_000, None),
        (json.dumps({"id": "x" * 512}).encode(), "x" * 512),
        (json.dumps({"id": "x" * 513}).encode(), None),
        (json.dumps({"id": "ü" * 257}).encode(), None),
        (b'{"id": "evt_\\u0000"}', None),
    ],
)
def test_only_a_usable_id_is_read(body, event_id):
    assert readable_event_id(json_object(body) or {}) == event_id


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"1",
        b'"{}"',
        b"{} {}",
        b"1700000000.{}",
        b'{"a":\xff}',
        b'{"a":NaN}',
    ],
)
def test_a_body_that_is_not_a_json_object_is_read_as_none(body):
    assert json_object(body) is None


@given(st.binary())
def test_reading_a_body_never_raises_an_error(body):
    json_object(body)
