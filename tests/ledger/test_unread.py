"""A batch that can't be read becomes one rejection at its last offset, and leaves no gap."""

import pytest

from ledger.deduplication import deduplicate
from ledger.rejections import Reason
from ledger.unread import UnreadBatch
from ledger.verification.truth import Truth
from tests.ledger.examples import success
from tests.ledger.verification.audited import PARTITIONS, READING, Log, body_of, partition_of

WHY = "unpacks to more than 16777216 bytes"


def log_with(value: bytes) -> Log:
    """Return a log with events at offsets 0 and 4 of a partition, and ``value`` at offset 3."""
    log, partition = Log(), partition_of(b"evt_1")
    other = f"evt_{1 + PARTITIONS}"
    assert partition_of(other.encode()) == partition
    log.append(body_of(success("evt_1")), b"evt_1")
    log.append(value, b"", partition=partition, signature="")
    log.append(body_of(success(other, payment="pay_5")), other.encode())
    _, unread, last = log.partitions[partition]
    unread.offset, unread.key, last.offset = 3, None, 4
    return log


def test_an_unread_batch_is_rejected_with_a_reason_and_the_events_around_it_are_folded():
    unread = UnreadBatch.of(Reason.BATCH_TOO_LARGE, 1, 3, WHY)
    records = log_with(unread).partitions[partition_of(b"evt_1")]
    result = deduplicate(records, {}, READING)
    assert result.outcomes == ["folded", "rejected.batch_too_large", "folded"]
    (rejected,) = result.rejected
    assert rejected.rejection.detail == f"the batch of offsets 1 to 3 {WHY}"
    assert rejected.record.offset == 3


@pytest.mark.parametrize("is_written", [True, False])
def test_offsets_before_an_unread_batchs_value_are_a_gap_if_another_program_wrote_the_value(
    is_written,
):
    unread = UnreadBatch.of(Reason.BATCH_TOO_LARGE, 1, 3, WHY)
    # Another program can write the same bytes, but only a reader creates the ``UnreadBatch``.
    value = bytes(unread) if is_written else unread
    truth = Truth(READING, None, partition_of)
    for partition, records in log_with(value).partitions.items():
        truth.read(partition, records)
    kinds = [fault.kind for fault in truth.faults]
    assert ("log_incomplete" in kinds) == is_written
    assert sum(map(len, truth.facts.values())) == 2
