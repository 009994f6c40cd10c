"""An event id is forgotten according to the log's time, no matter when its row is deleted."""

import json
from collections import Counter
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.deduplication import (
    DAY_MS,
    FORGET_AFTER_MS,
    PROGRESS_KEY,
    START,
    AnotherLogError,
    Deduplicated,
    Progress,
    Seen,
    deduplicate,
    forgettable,
)
from ledger.events import Event, Reading
from ledger.lifecycle import SEED
from ledger.payments import fold_payments
from ledger.rejections import Reason
from tests.ledger.examples import refund, success
from tests.ledger.pipeline import Pipeline
from tests.ledger.verification.audited import Ledger
from tests.strategies import chunked, histories

READING = Reading()
FIRST_MS = 1_700_000_000_000


def record(offset: int, day: float, event_id: str = "evt_1", amount: int = 500) -> Any:
    data = {"id": "pay_1", "amount": amount, "currency": "KZT"}
    body = {"id": event_id, "type": "payment.succeeded", "created": FIRST_MS // 1000, "data": data}
    return SimpleNamespace(
        key=event_id.encode(),
        value=json.dumps(body).encode(),
        partition=0,
        offset=offset,
        timestamp=FIRST_MS + int(day * DAY_MS),
        headers=(),
    )


def judge(*records: Any, **more: Any) -> Deduplicated:
    return deduplicate(records, more.pop("known", {}), READING, **more)


def taken(result: Deduplicated) -> list[int]:
    return [event.offset for event in result.events]


@pytest.mark.parametrize(
    ("day", "offsets"), [(89.9, [0]), (90, [0]), (90.1, [0, 1]), (400, [0, 1])]
)
def test_an_id_counts_as_new_again_only_after_the_time_limit_for_forgetting(day, offsets):
    assert taken(judge(record(0, 0), record(1, day))) == offsets
    first = judge(record(0, 0))
    again = judge(record(1, day), known=first.seen, progress=first.progress)
    assert taken(again) == offsets[1:]


def test_a_forgotten_id_is_remembered_again_with_its_new_content():
    result = judge(record(0, 0), record(1, 100, amount=7), record(2, 150, amount=7), record(3, 150))
    assert taken(result) == [0, 1]
    assert result.seen[b"evt_1"].offset == 1
    assert result.counts == {"folded": 2, "duplicate": 1, "rejected.event_id_reused": 1}


def test_a_duplicate_does_not_extend_the_time_for_which_its_id_is_remembered():
    assert taken(judge(record(0, 0), record(1, 80), record(2, 100))) == [0, 2]


def test_the_time_after_which_an_id_is_forgotten_can_be_set():
    assert taken(judge(record(0, 0), record(1, 5), forget_after_ms=4 * DAY_MS)) == [0, 1]
    assert taken(judge(record(0, 0), record(1, 100), forget_after_ms=100 * DAY_MS)) == [0]


def test_ids_are_forgotten_by_the_logs_time_which_never_goes_back():
    """Records from several ingresses have no strict order in time, and a clock may be wrong."""
    result = judge(record(0, 0), record(1, 100, "evt_2"), record(2, 1), record(3, 2))
    # `evt_2` advances the log's time, so `evt_1` is forgotten, and then counts as new.
    assert taken(result) == [0, 1, 2]
    assert result.seen[b"evt_1"].timestamp_ms == FIRST_MS + 100 * DAY_MS
    assert result.progress == Progress(b"", 3, FIRST_MS + 100 * DAY_MS, rules=SEED.digest)


def test_a_timestamp_that_is_years_ahead_makes_the_ledger_forget_an_id_only_one_time():
    result = judge(record(0, 0), record(1, 9999, "evt_2"), *(record(n, n) for n in (2, 3, 4)))
    assert taken(result) == [0, 1, 2]
    assert result.counts["duplicate"] == 2


def test_only_forgotten_ids_may_be_deleted():
    seen = judge(record(0, 0), record(1, 50, "evt_2"), record(2, 90, "evt_3"))
    assert forgettable(seen.seen, seen.progress, FORGET_AFTER_MS) == []
    later = judge(record(3, 140, "evt_4"), known=seen.seen, progress=seen.progress)
    assert forgettable(seen.seen, later.progress, FORGET_AFTER_MS) == [b"evt_1"]
    last = judge(record(4, 140.1, "evt_5"), progress=later.progress)
    assert forgettable(seen.seen, last.progress, FORGET_AFTER_MS) == [b"evt_1", b"evt_2"]


def test_judged_records_are_skipped_even_if_their_ids_were_deleted_or_repeated():
    log = [record(0, 0), record(1, 1, amount=7), record(2, 100), record(3, 101, "evt_2")]
    first = judge(*log)
    for known in (first.seen, {}):
        again = judge(*log, known=known, progress=first.progress)
        assert (again.events, again.rejected, again.seen) == ([], [], {})
        assert again.counts == {"replayed": 4}


def test_the_records_of_a_different_log_are_not_skipped():
    """A new log starts at offset 0, so its records could look as if they were already judged."""
    progress = judge(record(0, 0), record(1, 1, "evt_2")).progress
    with pytest.raises(AnotherLogError, match="plexy-ledger rebuild"):
        judge(record(0, 2, "evt_3"), progress=progress)


class Table:
    """A partition's table as the agent writes it; after a crash, the last writes may be missing."""

    def __init__(self) -> None:
        self.values: dict[bytes, Seen | Progress] = {}

    @property
    def progress(self) -> Progress:
        held = self.values.get(PROGRESS_KEY, START)
        assert isinstance(held, Progress)
        return held

    @property
    def seen(self) -> dict[bytes, Seen]:
        return {key: held for key, held in self.values.items() if isinstance(held, Seen)}

    def lasting(self) -> dict[bytes, Seen]:
        gone = forgettable(self.seen, self.progress, FORGET_AFTER_MS)
        return {key: held for key, held in self.seen.items() if key not in gone}

    def write(self, writes: list[tuple[bytes, Any]]) -> None:
        for key, value in writes:
            if value is None:
                self.values.pop(key, None)
            else:
                self.values[key] = value


@st.composite
def logs(draw: st.DrawFn) -> list[Any]:
    """Draw records of many months, with timestamps from clocks that disagree."""
    days = st.sampled_from([-120, -1, 0, 0, 0, 1, 30, 89, 91, 200])
    ids, amounts = st.sampled_from(["evt_1", "evt_2", "evt_3"]), st.sampled_from([5, 5, 6, -1])
    drawn = draw(st.lists(st.tuples(days, ids, amounts), max_size=14))
    day, records = 0, []
    for offset, (step, event_id, amount) in enumerate(drawn):
        day += max(step, 0)
        records.append(record(offset, day + min(step, 0), event_id, amount))
    return records


@settings(max_examples=500)
@given(st.data())
def test_deletions_at_any_moment_and_crashes_at_any_point_change_no_verdict(data):
    log = data.draw(logs())
    whole = judge(*log)
    table, events, rejected = Table(), {}, {}
    committed = crashes = 0
    while committed < len(log):
        position = committed
        for chunk in data.draw(chunked(log[committed:])):
            before = table.progress
            known = {r.key: table.seen[r.key] for r in chunk if r.key in table.seen}
            result = judge(*chunk, known=known, progress=before)
            # An event that is published twice has the same content both times.
            for event in result.events:
                assert events.setdefault(event.offset, event) == event
            for item in result.rejected:
                assert rejected.setdefault(item.record.offset, item) == item
            deleted = [
                key
                for key in forgettable(table.seen, before, FORGET_AFTER_MS)
                if data.draw(st.booleans())
            ]
            writes = [*dict.fromkeys(deleted).items(), *result.seen.items()]
            writes.append((PROGRESS_KEY, result.progress))
            crash = crashes < 3 and data.draw(st.integers(0, 3)) == 0
            kept = data.draw(st.integers(0, len(writes))) if crash else len(writes)
            table.write(writes[:kept])
            if crash:
                crashes += 1
                break
            position += len(chunk)
            if data.draw(st.booleans()):
                committed = position
        else:
            committed = len(log)
    assert list(dict(sorted(events.items())).values()) == whole.events
    assert [item for _, item in sorted(rejected.items())] == whole.rejected
    undeleted = Table()
    undeleted.write([*whole.seen.items(), (PROGRESS_KEY, whole.progress)])
    assert table.lasting() == undeleted.lasting()
    assert not log or table.progress == whole.progress


def moved(event: Event, **more: Any) -> Event:
    """Return the same event at a different offset of the log."""
    return msgspec.structs.replace(event, offset=event.offset + 1000, **more)


@given(st.data())
def test_events_that_are_redelivered_after_their_ids_were_forgotten_change_nothing(data):
    history = data.draw(histories())
    pipeline = Pipeline()
    pipeline.fold([history])
    before = (dict(pipeline.payments), dict(pipeline.orders), dict(pipeline.entries))
    drawn = data.draw(st.lists(st.sampled_from(history))) if history else []
    again = [moved(event) for event in drawn]
    folded = fold_payments(again, pipeline.payments)
    assert (folded.payments, folded.snapshots, folded.entries, folded.reused) == ({}, [], [], [])
    pipeline.fold(data.draw(chunked(again)))
    assert (pipeline.payments, pipeline.orders, pipeline.entries) == before


def test_an_event_that_reuses_a_forgotten_id_for_the_same_payment_is_reported_and_not_folded():
    pipeline = Pipeline()
    pipeline.fold([[success(), refund()]])
    other = moved(success(amount=1, order="ord_9"))
    folded = fold_payments([other, moved(refund())], pipeline.payments)
    assert (folded.payments, folded.snapshots, folded.entries) == ({}, [], [])
    assert folded.reused == [other]


def test_an_event_that_reuses_a_forgotten_id_for_another_payment_is_a_fact_of_the_other_payment():
    """If a sender reuses a forgotten id, both events count, each with its own entry and order."""
    history = [success("evt_1", payment="pay_1", order="ord_1")]
    history.append(success("evt_1", payment="pay_2", order="ord_2", amount=7))
    ledger = Ledger(history, days=[0, 100])
    assert ledger.differences() == []
    assert sorted(ledger.pipeline.entries) == ["payment/pay_1/evt_1", "payment/pay_2/evt_1"]
    assert {key: each.totals["KZT"].paid for key, each in ledger.pipeline.documents().items()} == {
        "ord_1": 500,
        "ord_2": 7,
    }
    del ledger.entries[1]
    assert Counter(str(found.kind) for found in ledger.differences()) == {
        "entry_missing": 1,
        "balance_differs": 2,
    }
    # While the id is remembered, the second event is refused.
    ledger = Ledger(history, days=[0, 80])
    assert ledger.differences() == []
    assert [name for name, each in ledger.pipeline.payments.items() if each.facts] == ["pay_1"]
    assert Reason.EVENT_ID_REUSED in str(ledger.truth().counts)
