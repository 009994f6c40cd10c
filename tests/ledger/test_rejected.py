"""A rejected record keeps the bytes as they arrived, and names the reason and the source."""

from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from ledger.envelope import decode_envelope
from ledger.rejected import MAX_KEPT_BYTES, Unkept, put_back_record, rejected_record, unkept
from ledger.rejections import Reason, Rejection

NEGATIVE = Rejection(reason=Reason.AMOUNT_NEGATIVE, detail="data.amount: ü", field="data.amount")


def test_the_headers_name_the_reason_and_the_source():
    source = ("plexy.webhooks", 3, 2**40)
    assert rejected_record(b"{}", NEGATIVE, "evt/1 ü", source) == (
        "evt/1 ü".encode(),
        b"{}",
        [
            ("reason", b"amount_negative"),
            ("detail", "data.amount: ü".encode()),
            ("source-topic", b"plexy.webhooks"),
            ("source-partition", b"3"),
            ("source-offset", b"1099511627776"),
        ],
    )


def test_without_a_source_there_are_no_source_headers():
    _, _, headers = rejected_record(b"{}", NEGATIVE, "evt_1", None)
    assert [name for name, _ in headers] == ["reason", "detail"]


def test_without_an_event_id_the_key_is_the_hash_of_the_bytes():
    for event_id in (None, ""):
        key, value, _ = rejected_record(b"\xff\x00", NEGATIVE, event_id, None)
        assert (key, value) == (sha256(b"\xff\x00").hexdigest().encode(), b"\xff\x00")


@given(st.binary())
def test_bytes_that_are_not_an_envelope_become_the_same_record_each_time(body):
    rejection = decode_envelope(body)
    if isinstance(rejection, Rejection):
        record = rejected_record(body, rejection, None, ("t", 0, 1))
        assert record == rejected_record(body, rejection, None, ("t", 0, 1))
        assert record[1] == body


def read(record):
    return unkept({name: value.decode() for name, value in record[2]})


def test_a_body_above_the_limit_is_represented_by_its_size_and_its_digest_and_its_source():
    source = ("plexy.webhooks", 3, 7)
    assert (
        rejected_record(b"x" * MAX_KEPT_BYTES, NEGATIVE, None, source)[1] == b"x" * MAX_KEPT_BYTES
    )
    body = b"x" * (MAX_KEPT_BYTES + 1)
    key, value, headers = rejected_record(body, NEGATIVE, None, source)
    digest = sha256(body).hexdigest()
    assert (key, value) == (digest.encode(), b"")
    assert headers[2:] == [
        ("source-topic", b"plexy.webhooks"),
        ("source-partition", b"3"),
        ("source-offset", b"7"),
        ("body-bytes", b"%d" % len(body)),
        ("body-sha256", digest.encode()),
    ]
    assert read((key, value, headers)) == Unkept(digest, len(body))


def test_a_smaller_limit_on_the_kept_bytes_may_be_given():
    _, value, headers = rejected_record(b"xy", NEGATIVE, "evt_1", ("t", 0, 1), keep_bytes=1)
    assert (value, dict(headers)["body-bytes"]) == (b"", b"2")


def test_a_delivery_that_ingress_refused_is_kept_whole_because_no_other_copy_exists():
    body = b"x" * (MAX_KEPT_BYTES + 1)
    record = rejected_record(body, NEGATIVE, None, None)
    assert record[1] == body
    assert read(record) is None


def test_the_put_back_record_of_an_item_whose_body_was_not_kept_has_the_digest_of_the_body():
    key, value, headers = rejected_record(b"xy", NEGATIVE, "e", ("t", 0, 1), keep_bytes=0)
    mark = put_back_record(key, value, headers, "t/0/1", 5)
    assert mark[:2] == (b"e", b"")
    assert read(mark) == Unkept(sha256(b"xy").hexdigest(), 2)


def test_a_digest_and_a_size_describe_only_the_bytes_that_have_both():
    named = Unkept(sha256(b"xy").hexdigest(), 2)
    assert named.describes(b"xy")
    assert not named.describes(b"xz")
    assert not Unkept(named.sha256, 3).describes(b"xy")


def test_a_long_detail_is_cut_so_that_the_record_does_not_become_too_large():
    long = Rejection(reason=Reason.MALFORMED_JSON, detail="ü" * 10**6)
    _, _, headers = rejected_record(b"", long, None, None)
    assert len(dict(headers)["detail"]) == 2000
