"""``Truth``, a fold of the log from scratch, reports each faulty record and each gap in the log."""

from typing import Any

import pytest

from ledger.trust import Trust
from ledger.verification.differences import Difference, DifferenceKind
from ledger.verification.truth import Truth
from tests.ledger.examples import success
from tests.ledger.verification.audited import (
    NOW_S,
    PARTITIONS,
    READING,
    SECRET,
    Ledger,
    body_of,
    example,
    new_truth,
    partition_of,
)


def _append(ledger: Ledger, body: bytes, key: bytes, **more: Any) -> list[Difference]:
    """Append a record that the tables may still lack, and return the differences."""
    settled = ledger.log.ends()
    ledger.log.append(body, key, **more)
    return ledger.differences(settled=settled)


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        ({"secret": b"whsec_test_key_other"}, "signature_mismatch"),
        ({"signature": ""}, "signature_missing"),
        ({"signature": "t=1"}, "signature_malformed"),
        ({"arrived": b"%d000" % (NOW_S + 301)}, "timestamp_out_of_tolerance"),
        ({"arrived": b""}, "arrival_unknown"),
        ({"arrived": "²".encode()}, "arrival_unknown"),
    ],
)
def test_a_record_whose_signature_is_not_good_is_reported(more, fault):
    event = success("evt_9", payment="pay_9", order="ord_9")
    ledger = example()
    (found,) = _append(ledger, body_of(event), b"evt_9", **more)
    assert (found.kind, found.detail) == (DifferenceKind.SIGNATURE_INVALID, fault)
    place = (partition_of(b"evt_9"), len(ledger.log.partitions[partition_of(b"evt_9")]) - 1)
    assert found.subject == f"record plexy.webhooks[{place[0]}]@{place[1]}, event evt_9"
    assert (found.payment_id, found.order_id) == ("pay_9", "ord_9")


def test_a_record_that_is_not_an_event_is_reported_with_its_key():
    (found,) = _append(example(), b"{", b"evt_9", signature="")
    assert found.subject.endswith(", key evt_9")


def test_a_body_with_a_bad_signature_and_a_known_id_is_reported_with_the_payment():
    (found,) = _append(example(), body_of(success("evt_1", amount=9)), b"evt_1", secret=b"other")
    assert (found.kind, found.payment_id) == (DifferenceKind.SIGNATURE_INVALID, "pay_1")


def test_a_record_outside_the_partition_of_its_key_is_reported():
    right = partition_of(b"evt_9")
    body = body_of(success("evt_9", payment="pay_9"))
    (found,) = _append(example(), body, b"evt_9", partition=(right + 1) % PARTITIONS)
    assert (found.kind, found.detail) == (
        DifferenceKind.RECORD_MISPLACED,
        f"its key belongs to partition {right}",
    )


def test_the_signatures_of_records_below_the_given_offset_are_not_checked():
    ledger = example()
    ledger.log.append(body_of(success("evt_9")), b"evt_9", secret=b"other")
    end = ledger.log.ends()[partition_of(b"evt_9")]
    record = ledger.log.partitions[partition_of(b"evt_9")][-1]
    assert Trust(secrets=(SECRET,)).fault(record) == "signature_mismatch"
    since = {partition_of(b"evt_9"): end}
    assert Trust(secrets=(SECRET,), since=since).fault(record) is None
    since = {partition_of(b"evt_9"): end - 1}
    assert Trust(secrets=(SECRET,), since=since).fault(record) == "signature_mismatch"


def test_without_trust_no_signature_is_checked():
    ledger = example()
    ledger.log.append(b"{}", b"evt_9", signature="")
    truth = Truth(READING, None, partition_of)
    for partition, records in ledger.log.partitions.items():
        truth.read(partition, records)
    assert truth.faults == []


def test_a_hole_in_the_log_is_reported():
    ledger = Ledger([success(f"evt_{n}", payment=f"pay_{n}") for n in range(9)])
    del ledger.log.partitions[0][0]
    (found,) = ledger.truth().faults
    assert str(found) == "log_incomplete  plexy.webhooks[0]: offsets 0 to 0 are missing"


def test_a_log_that_lost_its_end_is_reported():
    truth = example().truth()
    truth.reached(0, 100)
    assert [fault.kind for fault in truth.faults] == [DifferenceKind.LOG_INCOMPLETE]
    truth.reached(0, 1)
    assert "ends at offset 1" in truth.faults[-1].detail


def test_forgotten_ids_are_dropped_from_memory():
    """If an id arrives again after its time, it is remembered as a new id, at the list's end."""
    ids = ["evt_1", "evt_4", "evt_1", "evt_7", "evt_10"]
    ledger = Ledger([success(each) for each in ids], days=[0, 20, 100, 120, 150])
    partition = partition_of(b"evt_1")
    assert {partition_of(each.encode()) for each in ids} == {partition}
    truth, records = new_truth(), ledger.log.partitions[partition]
    kept = []
    for record in records:
        truth.read(partition, [record])
        kept.append(list(truth.seen[partition]))
    assert kept[:3] == [[b"evt_1"], [b"evt_1", b"evt_4"], [b"evt_4", b"evt_1"]]
    assert kept[3:] == [[b"evt_1", b"evt_7"], [b"evt_1", b"evt_7", b"evt_10"]]
