"""A rejected record keeps the bytes as they came, and says why and where from."""

from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from ledger.envelope import decode_envelope
from ledger.rejected import rejected_record
from ledger.rejections import Reason, Rejection

NEGATIVE = Rejection(reason=Reason.AMOUNT_NEGATIVE, detail="data.amount: ü", field="data.amount")


def test_the_headers_name_reason_and_source():
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


def test_without_a_source_there_are_no_headers_of_one():
    _, _, headers = rejected_record(b"{}", NEGATIVE, "evt_1", None)
    assert [name for name, _ in headers] == ["reason", "detail"]


def test_without_an_event_id_the_key_is_the_hash_of_the_bytes():
    for event_id in (None, ""):
        key, value, _ = rejected_record(b"\xff\x00", NEGATIVE, event_id, None)
        assert (key, value) == (sha256(b"\xff\x00").hexdigest().encode(), b"\xff\x00")


@given(st.binary())
def test_any_bytes_that_are_no_envelope_become_the_same_record_each_time(body):
    rejection = decode_envelope(body)
    if isinstance(rejection, Rejection):
        record = rejected_record(body, rejection, None, ("t", 0, 1))
        assert record == rejected_record(body, rejection, None, ("t", 0, 1))
        assert record[1] == body
