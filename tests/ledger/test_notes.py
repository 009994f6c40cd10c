"""Deliveries that do not count are shown with their orders and payments, and change no money.

A note describes one of these deliveries. A payment and its order show the note.
"""

import functools
import json
import operator
from dataclasses import dataclass

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.deduplication import START, deduplicate
from ledger.events import Reading
from ledger.journal import balances
from ledger.lifecycle import LIFECYCLE, SEED
from ledger.notes import MOST_NOTES, UNFOLDED, Note, counts, kept_notes, key_of, shown, with_note
from ledger.payment_documents import TOO_LARGE
from ledger.payments import describe_placed, fold_payments
from ledger.rejections import Reason
from ledger.wire import EVENTS
from tests.ledger.pipeline import Pipeline, documents_of
from tests.strategies import chunked

NOW_S = 1_700_000_000
READING = Reading()
GOOD = {"id": "pay_1", "amount": 500, "currency": "KZT", "orderReference": "ord_1"}
BAD = GOOD | {"amount": None}
WORSE = GOOD | {"currency": None}


@dataclass
class LogRecord:
    key: bytes
    value: bytes
    offset: int
    partition: int = 2
    timestamp: int = 1_700_000_000_000
    headers: tuple[tuple[str, bytes], ...] = ()


def delivery(event_id, data, offset, kind="payment.succeeded") -> LogRecord:
    body = {"id": event_id, "type": kind, "created": NOW_S, "data": data}
    return LogRecord(event_id.encode(), json.dumps(body).encode(), offset)


def folded(*records: LogRecord) -> Pipeline:
    result = deduplicate(records, {}, READING)
    pipeline = Pipeline()
    pipeline.fold([each] for each in (*result.events, *result.notes))
    return pipeline


def order(pipeline: Pipeline, order_id="ord_1"):
    document = pipeline.documents()[order_id]
    notes = [(n.offset, n.outcome, n.corrected) for n in document.notes or ()]
    return document.status, set(document.anomalies), notes


def test_an_order_named_only_by_a_refused_event_has_the_status_unknown_and_shows_the_event():
    pipeline = folded(delivery("evt_1", BAD, 5))
    assert order(pipeline) == ("unknown", {"refused_event"}, [(5, "amount_missing", False)])
    document = pipeline.documents()["ord_1"]
    assert (document.version, document.payments, document.totals) == (0, (), {})
    assert (document.first_event, document.last_event) == (NOW_S, NOW_S)
    placed = describe_placed(pipeline.payments["pay_1"])
    assert (placed.status, placed.order_id, placed.events) == ("unknown", "ord_1", ())
    assert (placed.anomalies, placed.notes) == (("refused_event",), document.notes)


def test_a_refused_refund_is_shown_in_the_order_of_the_payment_that_it_names():
    refund = {"id": "re_1", "payment_id": "pay_1", "amount": None, "currency": "KZT"}
    pipeline = folded(delivery("evt_1", GOOD, 5), delivery("evt_2", refund, 6, "refund.succeeded"))
    assert order(pipeline) == ("paid", {"refused_event"}, [(6, "amount_missing", False)])
    assert pipeline.documents()["ord_1"].version == 1


def test_an_event_of_an_unknown_type_is_shown_with_an_anomaly():
    dispute = {"id": "dp_1", "payment_id": "pay_1", "amount": 500, "currency": "KZT"}
    pipeline = folded(delivery("evt_1", GOOD, 5), delivery("evt_2", dispute, 6, "dispute.lost"))
    assert order(pipeline) == ("paid", {"unfolded_event"}, [(6, "unfolded", False)])


def test_an_event_of_an_informational_type_is_shown_without_an_anomaly():
    log = [delivery("evt_1", GOOD, 5, "payment.created")]
    (note,) = deduplicate(log, {}, Reading(rules=LIFECYCLE)).notes
    assert (note.outcome, note.informational, note.anomaly) == ("unfolded", True, None)
    log = [delivery("evt_1", GOOD, 5, "payment.levitated")]
    (unknown,) = deduplicate(log, {}, Reading(rules=LIFECYCLE)).notes
    assert unknown.anomaly == "unfolded_event"


@pytest.mark.parametrize("bad", [BAD, WORSE, BAD | {"id": None}, BAD | {"id": "pay_2"}])
@pytest.mark.parametrize("is_late", [False, True])
def test_the_anomaly_of_a_refused_event_ends_when_a_corrected_delivery_counts(bad, is_late):
    """The refused delivery may name a different payment or no payment, and may arrive later."""
    offsets = (6, 5) if is_late else (5, 6)
    records = [delivery("evt_1", bad, offsets[0]), delivery("evt_1", GOOD, offsets[1])]
    pipeline = folded(*sorted(records, key=lambda each: each.offset))
    status, anomalies, ((offset, _, corrected),) = order(pipeline)
    assert (status, anomalies, offset, corrected) == ("paid", set(), offsets[0], True)


@pytest.mark.parametrize("rules", [SEED, LIFECYCLE])
@pytest.mark.parametrize("kind", ["payment.succeded", "payment.pending", "refund.updated"])
def test_after_an_unfolded_delivery_a_corrected_delivery_with_the_same_id_counts(kind, rules):
    """The note of the unfolded delivery stays, and says that the event was corrected.

    A repeat of the unfolded delivery is a duplicate. The quarantine marks only the refused delivery
    as corrected, because the quarantine has no unfolded deliveries.
    """
    log = [
        delivery("evt_1", GOOD | {"payment_id": "pay_1", "status": "odd"}, 4, kind),
        delivery("evt_1", BAD, 5),
        delivery("evt_1", GOOD, 6),
        delivery("evt_1", GOOD | {"payment_id": "pay_1", "status": "odd"}, 7, kind),
    ]
    result = deduplicate(log, {}, Reading(rules=rules))
    unfolded = f"unfolded.{kind}"
    assert result.outcomes == [unfolded, "rejected.amount_missing", "folded", "duplicate"]
    assert [(each.rejected_at, each.counts_at) for each in result.corrected] == [(5, 6)]
    pipeline = Pipeline()
    pipeline.fold([each] for each in (*result.events, *result.notes))
    notes = [(4, "unfolded", True), (5, "amount_missing", True)]
    assert order(pipeline) == ("paid", set(), notes)


def test_unfolded_events_with_the_same_id_and_different_content_are_all_shown():
    log = [delivery("evt_1", GOOD, n, f"payment.odd_{n}") for n in range(2)]
    pipeline = folded(*log)
    notes = [(0, "unfolded", False), (1, "unfolded", False)]
    assert order(pipeline) == ("unknown", {"unfolded_event"}, notes)


def test_a_delivery_stays_an_anomaly_if_it_reuses_the_id_of_an_event_that_counts():
    pipeline = folded(
        delivery("evt_1", GOOD, 5),
        delivery("evt_1", GOOD | {"amount": 7, "orderReference": "ord_2"}, 6),
        delivery("evt_1", BAD, 7),
    )
    reused = (6, "event_id_reused", False)
    assert order(pipeline) == ("paid", {"refused_event"}, [reused, (7, "amount_missing", True)])
    assert order(pipeline, "ord_2") == ("unknown", {"refused_event"}, [reused])


def test_a_refused_event_that_names_no_order_is_shown_under_its_payment_until_an_order_is_known():
    bad = {"id": "pay_1", "currency": "KZT"}
    pipeline = folded(delivery("evt_1", bad, 5))
    assert order(pipeline, "pay_1")[1] == {"refused_event"}
    pipeline = folded(delivery("evt_1", bad, 5), delivery("evt_2", GOOD, 6))
    assert list(pipeline.documents()) == ["ord_1"]
    assert order(pipeline)[1] == {"refused_event"}


def test_a_note_that_is_kept_under_an_event_id_is_not_shown_with_a_payment_of_the_same_id():
    """The note of an event that names no payment is kept under the event's id."""
    pipeline = folded(
        delivery("pay_1", BAD | {"id": None, "orderReference": "ord_2"}, 5),
        delivery("evt_2", GOOD, 6),
    )
    assert order(pipeline) == ("paid", set(), [])
    assert order(pipeline, "ord_2")[2] == [(5, "id_missing", False)]


def test_a_delivery_that_names_neither_a_payment_nor_an_order_leaves_no_note():
    result = deduplicate([delivery("evt_1", {"amount": 5}, 5)], {}, READING)
    assert (result.notes, result.counts) == ([], {"rejected.id_missing": 1})


def test_a_payment_keeps_its_earliest_notes_and_reports_that_later_notes_were_left_out():
    records = [delivery(f"evt_{n:03}", BAD, n) for n in range(MOST_NOTES + 3)]
    for log in (records, records[::-1]):
        result = [note for each in log for note in deduplicate([each], {}, READING).notes]
        pipeline = Pipeline()
        pipeline.fold([note] for note in result)
        payment = pipeline.payments["pay_1"]
        assert [note.offset for note in payment.notes] == list(range(MOST_NOTES))
        assert payment.first_left == (NOW_S, f"evt_{MOST_NOTES:03}", 2, MOST_NOTES)
        assert order(pipeline)[1] == {"refused_event", TOO_LARGE}


def test_a_note_is_no_longer_shown_when_its_delivery_counts():
    """After a fix, a retry makes the previously refused delivery count."""
    (note,) = deduplicate([delivery("evt_1", BAD, 5)], {}, READING).notes
    assert shown([note, counts("evt_1", 2, 5, "pay_1")]) == ()
    assert shown([note, counts("evt_1", 2, 6, "pay_1")]) == (
        msgspec.structs.replace(note, corrected=True),
    )


def test_a_note_is_read_from_its_topic_as_it_was_written():
    (note,) = deduplicate([delivery("evt_1", BAD, 5)], {}, READING).notes
    assert EVENTS.decode(EVENTS.encode(note)) == note


@st.composite
def logs(draw) -> list[LogRecord]:
    """Draw deliveries of a few events; many deliveries are refused, corrected, or not folded."""
    ids = st.sampled_from(["evt_1", "evt_2", "pay_1"])
    payments = st.sampled_from(["pay_1", "pay_2", None])
    orders = st.sampled_from(["ord_1", "pay_2", None])
    kinds = st.sampled_from(["payment.succeeded", "refund.succeeded", "dispute.lost"])
    amounts = st.sampled_from([5, 6, None])
    drawn = draw(st.lists(st.tuples(ids, payments, orders, amounts, kinds), max_size=9))
    return [
        delivery(
            event_id,
            {"id": payment, "amount": amount, "currency": "KZT", "orderReference": order_id},
            offset,
            kind,
        )
        for offset, (event_id, payment, order_id, amount, kind) in enumerate(drawn)
    ]


def facts_of(log):
    result = deduplicate(log, {}, READING)
    return [*result.events, *result.notes]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_every_permutation_and_duplication_of_events_and_notes_gives_the_same_orders(data):
    facts = facts_of(data.draw(logs()))
    repeated = data.draw(st.lists(st.sampled_from(facts))) if facts else []
    shuffled = data.draw(st.permutations([*facts, *repeated]))
    assert documents_of(shuffled) == documents_of(facts)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_every_cut_into_chunks_gives_the_same_orders_and_entries_and_a_note_changes_no_entry(data):
    facts = data.draw(st.permutations(facts_of(data.draw(logs()))))
    one, other, moneyed = Pipeline(), Pipeline(), Pipeline()
    one.fold([fact] for fact in facts)
    other.fold(data.draw(chunked(facts)))
    moneyed.fold([fact] for fact in facts if not isinstance(fact, Note))
    assert (other.documents(), other.entries) == (one.documents(), one.entries)
    assert balances(moneyed.entries) == balances(one.entries)
    assert moneyed.entries == one.entries
    for order_id, document in moneyed.documents().items():
        shown_with = one.documents()[order_id]
        assert (shown_with.totals, shown_with.payments) == (document.totals, document.payments)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_every_cut_of_the_log_into_chunks_gives_the_same_verdicts_and_rows_and_notes(data):
    log = data.draw(logs())
    whole = deduplicate(log, {}, READING)
    known, progress, parts = {}, START, []
    for chunk in data.draw(chunked(log)):
        parts.append(deduplicate(chunk, known, READING, progress))
        known, progress = known | parts[-1].seen, parts[-1].progress
    assert known == whole.seen
    for name in ("events", "notes", "rejected", "corrected", "outcomes"):
        assert functools.reduce(
            operator.iadd, (getattr(part, name) for part in parts), []
        ) == getattr(whole, name)


@settings(max_examples=200, deadline=None)
@given(logs())
def test_only_the_first_foldable_delivery_of_each_event_id_counts(log):
    result = deduplicate(log, {}, READING)
    places = [(event.event_id, event.offset) for event in result.events]
    due: dict[str, int] = {}
    for record in log:
        if deduplicate([record], {}, READING).events:
            due.setdefault(record.key.decode(), record.offset)
    assert sorted(places) == sorted(due.items())
    reasons = {each.rejection.reason for each in result.rejected}
    assert reasons <= {Reason.EVENT_ID_REUSED, Reason.AMOUNT_MISSING, Reason.ID_MISSING}


@settings(max_examples=200, deadline=None)
@given(logs())
def test_an_unfolded_delivery_has_no_anomaly_if_another_delivery_of_its_event_counts(log):
    result = deduplicate(log, {}, READING)
    counted = {event.event_id for event in result.events}
    for note in shown(result.notes):
        if note.outcome == UNFOLDED:
            assert (note.anomaly is None) == (note.event_id in counted)


@settings(max_examples=100)
@given(st.data())
def test_kept_notes_depend_only_on_the_set_of_notes(data):
    offsets = data.draw(st.lists(st.integers(0, 200), unique=True, max_size=90))
    notes = [
        Note(event_id="e", type="t", created=n % 3, partition=0, offset=n, outcome="unfolded")
        for n in offsets
    ]
    kept, first_left = (), None
    for note in notes:
        kept, first_left = with_note(kept, first_left, note)
    assert (kept, first_left) == kept_notes(data.draw(st.permutations(notes)))
    assert list(map(key_of, kept)) == sorted(map(key_of, notes))[:MOST_NOTES]


def test_a_note_changes_neither_the_facts_nor_the_order_id_of_its_payment():
    (note,) = deduplicate([delivery("evt_9", BAD, 5)], {}, READING).notes
    (event,) = deduplicate(
        [delivery("evt_1", GOOD | {"orderReference": "ord_2"}, 6)], {}, READING
    ).events
    (payment,) = fold_payments([note, event], {}).payments.values()
    assert (list(payment.facts), payment.order_id, payment.version) == (["evt_1"], "ord_2", 1)
