"""A record that a worker of the ledger wrote is read unchanged; any other record is rejected."""

from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from ledger.derived import MAX_EVENT_BYTES, read_events, read_snapshots
from ledger.envelope import MAX_ID_BYTES
from ledger.events import Event
from ledger.lifecycle import Kind
from ledger.money import MAX_AMOUNT_MINOR, Money
from ledger.payments import Snapshot, fold_payments
from ledger.rejections import Reason
from ledger.unread import UnreadBatch
from ledger.wire import EVENTS, SNAPSHOTS
from tests.ledger.examples import success

EVENT = success("evt_1", payment="pay_1", order="ord_1")
(SNAPSHOT,) = fold_payments([EVENT], {}).snapshots


class Written(NamedTuple):
    key: bytes | None
    value: bytes | None
    partition: int = 0
    offset: int = 0
    timestamp: int = 0


def written(value: Event | Snapshot, key: bytes | None = None) -> Written:
    if isinstance(value, Event):
        return Written(key or value.payment_id.encode(), EVENTS.encode(value))
    return Written(key or value.order_id.encode(), SNAPSHOTS.encode(value))


def rejected(read: Any, *records: Written) -> list[tuple[Reason, str]]:
    readings = read(records)
    assert readings.values == []
    return [(each.rejection.reason, each.rejection.detail) for each in readings.rejected]


def test_only_the_records_that_a_worker_wrote_are_read():
    bad = Written(b"\xff", b"\x00")
    readings = read_events([bad, written(EVENT), bad])
    assert (readings.records, readings.values) == ([written(EVENT)], [EVENT])
    assert readings.keys == {b"pay_1"}
    assert [each.record for each in readings.rejected] == [bad, bad]
    readings = read_snapshots([written(SNAPSHOT), bad])
    assert (readings.values, len(readings.rejected)) == ([SNAPSHOT], 1)


@pytest.mark.parametrize("read", [read_events, read_snapshots])
@given(st.none() | st.binary(max_size=60), st.none() | st.binary(max_size=300))
def test_no_bytes_raise_an_error(read, key, value):
    readings = read([Written(key, value)])
    assert len(readings.rejected) + len(readings.values) == 1


@pytest.mark.parametrize("read", [read_events, read_snapshots])
@pytest.mark.parametrize(
    "value", [None, b"", b"{}", b"\x90", b"\xc0", b"\x91" * 2000 + b"\x90", b"\xa1\xff"]
)
def test_a_tombstone_and_malformed_bytes_are_unreadable(read, value):
    ((reason, _),) = rejected(read, Written(b"pay_1", value))
    assert reason is Reason.UNREADABLE


def test_a_record_whose_key_is_not_the_id_of_its_payment_or_order_is_rejected():
    for key in (b"pay_2", b"\xff", b"ord_1"):
        assert rejected(read_events, written(EVENT, key)) == [
            (Reason.KEY_MISMATCH, "the record's key is not the payment's id")
        ]
    assert rejected(read_snapshots, written(SNAPSHOT, b"pay_1")) == [
        (Reason.KEY_MISMATCH, "the record's key is not the order's id")
    ]
    assert rejected(read_events, Written(None, EVENTS.encode(EVENT)))


def test_an_event_that_no_worker_writes_is_rejected():
    assert rejected(read_events, written(replace(EVENT, kind=Kind.INFORMATIONAL)))
    assert rejected(read_events, written(replace(EVENT, money=None)))
    long = replace(EVENT, order_reference="x" * MAX_EVENT_BYTES)
    ((_, detail),) = rejected(read_events, written(long))
    assert detail.startswith(f"expected an event of at most {MAX_EVENT_BYTES} bytes, got ")


def test_the_largest_event_that_deduplication_can_publish_is_read():
    text, number = "x" * MAX_ID_BYTES, 2**63 - 1
    largest = Event(
        event_id=text,
        type="payment.succeeded",
        created=MAX_AMOUNT_MINOR,
        data_id=text,
        money=Money(MAX_AMOUNT_MINOR, "KZT"),
        status=text,
        order_reference=text,
        payment_reference=text,
        partition=number,
        offset=number,
        kind=Kind.SUCCEEDED,
    )
    assert read_events([written(largest)]).values == [largest]


def test_a_snapshot_that_has_no_events_or_an_impossible_id_is_unreadable():
    assert SNAPSHOT.payment is not None
    empty = replace(SNAPSHOT, payment=replace(SNAPSHOT.payment, events=()))
    long = replace(SNAPSHOT, payment_id="x" * (MAX_ID_BYTES + 1))
    assert rejected(read_snapshots, written(empty)) == [
        (Reason.UNREADABLE, "the payment has no event")
    ]
    assert rejected(read_snapshots, written(long)) == [
        (Reason.UNREADABLE, f"expected ids of at most {MAX_ID_BYTES} bytes")
    ]


def test_a_record_that_stands_for_an_unread_batch_is_rejected_with_the_batchs_reason():
    value = UnreadBatch.of(Reason.BATCH_TOO_LARGE, 0, 3, "is too large")
    assert rejected(read_events, Written(None, value)) == [
        (Reason.BATCH_TOO_LARGE, "the batch of offsets 0 to 3 is too large")
    ]
    assert rejected(read_snapshots, Written(None, value))[0][0] is Reason.BATCH_TOO_LARGE


def test_a_value_with_the_additional_fields_of_a_later_release_is_read():
    fields = msgspec.msgpack.decode(EVENTS.encode(EVENT))
    later = Written(b"pay_1", msgspec.msgpack.encode([*fields, "new"]))
    assert read_events([later]).values == [EVENT]
