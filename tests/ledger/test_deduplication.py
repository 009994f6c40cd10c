"""An event counts once, even if its id is seen again with the same or different content."""

import json
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from ledger.deduplication import (
    FORGET_AFTER_MS,
    MOST_REPEATS,
    START,
    Corrected,
    Seen,
    deduplicate,
)
from ledger.envelope import content_digest, decode_envelope
from ledger.events import FieldNames, Reading
from ledger.rejections import Reason
from tests.strategies import chunked

READING = Reading()
GOOD = {"id": "pay_1", "amount": 500, "currency": "KZT"}
OTHER = GOOD | {"amount": 501}
UNUSABLE = GOOD | {"amount": -1}
CREATED = 1_700_000_000


@dataclass
class LogRecord:
    key: bytes | None
    value: bytes | None
    offset: int = 0
    partition: int = 2
    timestamp: int = 1_700_000_000_000
    headers: tuple[tuple[str, bytes], ...] = ()


def body(
    event_id="evt_1", data=GOOD, kind="payment.succeeded", created=1_700_000_000, **how
) -> bytes:
    envelope = {"id": event_id, "type": kind, "created": created, "data": data}
    return json.dumps(envelope, **how).encode()


def record(event_id="evt_1", data=GOOD, offset=0, **more) -> LogRecord:
    return LogRecord(event_id.encode(), body(event_id, data, **more), offset)


def judge(*records, known=None, progress=START):
    return deduplicate(records, known or {}, READING, progress)


def reasons(result):
    return [item.rejection.reason for item in result.rejected]


def test_a_new_event_is_folded_and_remembered():
    result = judge(record(offset=5))
    (event,) = result.events
    assert (event.event_id, event.partition, event.offset) == ("evt_1", 2, 5)
    digest = content_digest(decode_envelope(body()))
    assert result.seen == {b"evt_1": Seen(digest, 5, 1_700_000_000_000)}
    assert (result.rejected, result.counts) == ([], {"folded": 1})


def test_later_deliveries_with_the_same_content_are_dropped_and_counted():
    result = judge(record(offset=5), record(offset=6), record(offset=9))
    assert [event.offset for event in result.events] == [5]
    assert (result.seen[b"evt_1"].offset, result.seen[b"evt_1"].repeats) == (5, (6, 9))
    assert (result.rejected, result.counts) == ([], {"folded": 1, "duplicate": 2})


def test_the_same_content_in_a_later_chunk_is_dropped_and_its_offset_is_remembered():
    known = judge(record(offset=5)).seen
    result = judge(record(offset=6), known=known)
    assert (result.events, result.rejected) == ([], [])
    assert result.seen == {b"evt_1": replace(known[b"evt_1"], repeats=(6,))}
    assert result.counts == {"duplicate": 1}


def test_only_the_offsets_of_the_first_repeats_are_remembered():
    result = judge(*(record(offset=n) for n in range(MOST_REPEATS + 10)))
    assert result.seen[b"evt_1"].repeats == tuple(range(1, MOST_REPEATS + 1))
    assert result.counts["duplicate"] == MOST_REPEATS + 9


def test_repeats_that_are_judged_again_after_a_crash_add_nothing():
    records = [record(offset=5), record(offset=6), record(data=OTHER, offset=7)]
    known = judge(*records).seen
    result = judge(*records, known=known)
    assert (result.events, result.seen, result.rejected) == ([], {}, [])
    assert result.counts == {"replayed": 3}


@pytest.mark.parametrize("runs", [1, 2])
@pytest.mark.parametrize(
    "changed",
    [{"data": OTHER}, {"created": 1_700_000_001}, {"kind": "payment.failed"}, {"kind": "other"}],
)
def test_different_content_under_a_known_id_is_rejected_and_the_first_content_counts(runs, changed):
    first, second = record(offset=5), record(offset=6, **changed)
    known = judge(first).seen if runs == 2 else {}
    result = judge(*([first] if runs == 1 else []), second, known=known)
    assert [event.offset for event in result.events] == ([5] if runs == 1 else [])
    assert reasons(result) == [Reason.EVENT_ID_REUSED]
    assert (result.rejected[0].record, result.rejected[0].event_id) == (second, "evt_1")
    assert "offset 5" in result.rejected[0].rejection.detail
    assert result.counts["rejected.event_id_reused"] == 1


def test_after_other_content_is_rejected_a_repeat_of_the_first_content_is_a_duplicate():
    records = [record(offset=5), record(data=OTHER, offset=6), record(offset=7)]
    result = judge(*records)
    assert result.outcomes == ["folded", "rejected.event_id_reused", "duplicate"]
    assert result.counts == {"folded": 1, "rejected.event_id_reused": 1, "duplicate": 1}


@pytest.mark.parametrize(
    "again",
    [
        body(data=dict(reversed(GOOD.items()))),
        body(indent=2),
        body(separators=(",", ":")),
        body(sort_keys=True),
        body().replace(b"KZT", b"\\u004bZT"),
        body()[:-1] + b', "livemode": true}',
    ],
    ids=["key order", "white space", "no space", "all keys sorted", "escapes", "another field"],
)
def test_equal_content_that_is_serialised_differently_is_a_duplicate(again):
    assert again != body()
    result = judge(record(offset=5), LogRecord(b"evt_1", again, 6))
    assert result.counts == {"folded": 1, "duplicate": 1}


def test_the_first_record_of_an_id_publishes_nothing_when_it_is_judged_again():
    for first in (record(offset=5), record(data=UNUSABLE, offset=5), record(kind="x", offset=5)):
        result = judge(first, known=judge(first).seen)
        assert (result.events, result.seen, result.rejected) == ([], {}, [])
        assert result.counts == {"replayed": 1}


@pytest.mark.parametrize("key", [None, b"", b"evt_2", b"EVT_1", b"evt_1 "])
def test_a_record_under_a_wrong_key_is_rejected_and_not_remembered(key):
    result = judge(LogRecord(key, body(), 5))
    assert reasons(result) == [Reason.KEY_MISMATCH]
    assert (result.events, result.seen, result.rejected[0].event_id) == ([], {}, "evt_1")


@pytest.mark.parametrize("value", [None, b"", b"{", b"\xff"])
def test_a_value_that_is_not_json_is_rejected_and_the_rejection_has_no_event_id(value):
    result = judge(LogRecord(b"evt_1", value, 5))
    assert reasons(result) == [Reason.MALFORMED_JSON]
    assert (result.seen, result.rejected[0].event_id) == ({}, None)
    assert result.counts == {"rejected.malformed_json": 1}


def test_ids_with_control_characters_are_rejected_however_the_log_is_cut_into_chunks():
    """Earlier versions of ingress accepted these ids, so a rebuild may find them in the log."""
    odd = "evt_\0\x9b"
    records = [
        record(odd, offset=0),
        record("evt_1", GOOD | {"id": "pay_\x7f"}, offset=1),
        record("evt_2", GOOD | {"id": "pay_\n"}, offset=2),
        record("evt_3", offset=3),
        record(odd, offset=4),
    ]
    whole = judge(*records)
    assert [item.rejection.reason for item in whole.rejected] == 4 * [Reason.CONTROL_CHARACTERS]
    assert [item.event_id for item in whole.rejected] == [None, "evt_1", "evt_2", None]
    assert [event.event_id for event in whole.events] == ["evt_3"]
    assert list(whole.seen) == [b"evt_1", b"evt_2", b"evt_3"]
    one_by_one, known, progress = [], {}, START
    for each in records:
        result = judge(each, known=known, progress=progress)
        one_by_one += result.rejected
        known, progress = known | result.seen, result.progress
    assert (one_by_one, known) == (whole.rejected, whole.seen)


def test_an_envelope_that_lacks_a_field_is_rejected_and_the_rejection_has_no_event_id():
    result = judge(LogRecord(b"evt_1", b'{"id": "evt_1"}', 5))
    assert reasons(result) == [Reason.INVALID_ENVELOPE]
    assert (result.seen, result.rejected[0].event_id) == ({}, None)


def test_a_rejected_event_is_remembered_so_that_its_redelivery_is_a_duplicate():
    result = judge(record(data=UNUSABLE, offset=5), record(data=UNUSABLE, offset=6))
    assert reasons(result) == [Reason.AMOUNT_NEGATIVE]
    assert list(result.seen) == [b"evt_1"]
    assert result.counts == {"rejected.amount_negative": 1, "duplicate": 1}


def test_after_a_rejection_a_corrected_delivery_with_the_same_id_counts():
    log = [record(data=UNUSABLE, offset=5), record(offset=6), record(offset=7)]
    result = judge(*log)
    assert result.outcomes == ["rejected.amount_negative", "folded", "duplicate"]
    assert [event.offset for event in result.events] == [6]
    assert result.seen[b"evt_1"] == replace(judge(log[1]).seen[b"evt_1"], repeats=(5, 7))
    assert result.corrected == [Corrected("evt_1", 2, 5, 6, 1_700_000_000_000)]


@pytest.mark.parametrize("runs", [1, 2])
def test_after_a_correction_the_rejected_content_is_rejected_again_if_it_is_redelivered(
    runs,
):
    first = [record(data=UNUSABLE, offset=5), record(offset=6)]
    known = judge(*first).seen if runs == 2 else {}
    result = judge(*(first if runs == 1 else ()), record(data=UNUSABLE, offset=7), known=known)
    assert result.outcomes[-1] == "rejected.amount_negative"
    assert [event.offset for event in result.events] == [6][: 2 - runs]
    assert result.corrected[-1] == Corrected("evt_1", 2, 7, 6, 1_700_000_000_000)


def test_before_a_delivery_counts_each_distinct_content_of_an_id_is_rejected_only_once():
    worse = UNUSABLE | {"amount": -2}
    log = [record(data=UNUSABLE, offset=5), record(data=worse, offset=6)]
    log += [record(data=UNUSABLE, offset=7), record(data=worse, offset=8), record(offset=9)]
    result = judge(*log)
    refused = ["rejected.amount_negative"] * 2
    assert result.outcomes == [*refused, "duplicate", "duplicate", "folded"]
    assert result.seen[b"evt_1"].repeats == (5, 6, 7, 8)
    assert [(each.rejected_at, each.counts_at) for each in result.corrected] == [(5, 9), (6, 9)]


def test_when_the_rules_can_read_rejected_content_the_content_counts_at_its_first_offset():
    """A retry or a redelivery after a fix must give the same state as a fold from scratch."""
    named = GOOD | {"amount": None, "betrag": 500}
    fixed = GOOD | {"id": "pay_1"}
    known = judge(record(data=UNUSABLE, offset=4), record(data=named, offset=5)).seen
    refused = replace(known[b"evt_1"].uncounted[1], digest=content_digest(decode_envelope(body())))
    before = replace(known[b"evt_1"], uncounted=(known[b"evt_1"].uncounted[0], refused))
    result = judge(record(data=fixed, offset=9), known={b"evt_1": before})
    assert [event.offset for event in result.events] == [5]
    assert result.seen[b"evt_1"] == Seen(refused.digest, 5, 1_700_000_000_000, (4, 9))


def test_a_corrected_event_whose_first_delivery_is_forgotten_counts_as_new():
    first, later = record(data=UNUSABLE, offset=5), record(offset=6)
    later.timestamp += FORGET_AFTER_MS + 1
    result = judge(first, later)
    assert (result.outcomes, result.corrected) == (["rejected.amount_negative", "folded"], [])
    assert result.seen[b"evt_1"].repeats == ()


def test_the_time_after_which_an_id_is_forgotten_starts_at_the_correction():
    log = [record(data=UNUSABLE, offset=5), record(offset=6), record(offset=7)]
    log[1].timestamp += FORGET_AFTER_MS
    log[2].timestamp += 2 * FORGET_AFTER_MS
    assert judge(*log).outcomes == ["rejected.amount_negative", "folded", "duplicate"]


def test_an_event_that_is_not_folded_is_counted_by_type_and_remembered():
    result = judge(record(kind="invoice.paid", offset=5), record(kind="invoice.paid", offset=6))
    assert (result.events, result.rejected) == ([], [])
    assert result.counts == {"unfolded.invoice.paid": 1, "duplicate": 1}


def test_the_configured_field_names_are_used_to_read_events():
    reading = Reading(FieldNames(order=("bestellung",)))
    (event,) = deduplicate([record(data=GOOD | {"bestellung": "ord_1"})], {}, reading).events
    assert event.order_reference == "ord_1"


@st.composite
def logs(draw):
    """Draw records with repeated ids, different contents and defects."""
    ids, data = st.sampled_from(["evt_1", "evt_2", "№"]), st.sampled_from([GOOD, OTHER, UNUSABLE])
    kinds = st.sampled_from(["payment.succeeded", "other"])
    bodies = st.builds(body, ids, data, kinds)
    keyed = st.one_of(
        st.builds(lambda i, d, k: (i.encode(), body(i, d, k)), ids, data, kinds),
        st.tuples(ids.map(str.encode), st.one_of(bodies, st.none(), st.binary(max_size=3))),
    )
    drawn = draw(st.lists(keyed, max_size=10))
    return [LogRecord(key, value, offset) for offset, (key, value) in enumerate(drawn)]


@settings(max_examples=100)
@given(st.data())
def test_every_cut_into_chunks_gives_the_same_verdicts(data):
    log = data.draw(logs())
    whole, known, progress, events, rejected = judge(*log), {}, START, [], []
    for chunk in data.draw(chunked(log)):
        result = judge(*chunk, known=known, progress=progress)
        known |= result.seen
        progress = result.progress
        events += result.events
        rejected += result.rejected
    assert (events, known, rejected) == (whole.events, whole.seen, whole.rejected)
    assert progress == whole.progress


@settings(max_examples=100)
@given(logs())
def test_every_record_is_counted_once(log):
    result = judge(*log)
    assert result.counts.total() == len(log)
    assert result.counts["folded"] == len(result.events) <= len(result.seen)


@settings(max_examples=100)
@given(logs())
def test_when_a_chunk_is_judged_again_nothing_is_folded_or_rejected(log):
    first = judge(*log)
    again = judge(*log, known=first.seen, progress=first.progress)
    assert (again.events, again.seen, again.rejected) == ([], {}, [])
    assert again.progress == first.progress
    assert again.counts["replayed"] == len(log)


@settings(max_examples=100)
@given(logs())
def test_a_chunk_is_not_folded_twice_if_its_rows_were_written_but_its_progress_was_not(log):
    first = judge(*log)
    again = judge(*log, known=first.seen)
    assert (again.events, again.seen) == ([], {})
    assert all(item in first.rejected for item in again.rejected)


def test_judging_records_does_not_change_the_rows_that_are_passed_in():
    known = judge(record(offset=5)).seen
    before = dict(known)
    judge(record("evt_2", offset=6), record(data=OTHER, offset=7), known=known)
    assert known == before
