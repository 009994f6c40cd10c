"""A payment keeps its earliest facts, up to a size limit, in whatever sequence the facts arrive.

Later facts are set aside. An entry stands if it is posted and not reversed.
"""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger import kept_facts, payments
from ledger.events import Event
from ledger.journal import balances, ids_of
from ledger.kept_facts import MOST_FACT_BYTES, kept_of, key_of
from ledger.payments import (
    Payment,
    PaymentFold,
    Snapshot,
    fold_payments,
    payment_of,
    standing_of,
)
from ledger.wire import PAYMENTS, SNAPSHOTS
from tests.ledger.examples import failure, refund, success
from tests.ledger.pipeline import Pipeline
from tests.strategies import chunked, histories

more = settings(max_examples=200, deadline=None)


@pytest.fixture(scope="module", autouse=True)
def _little_room():
    """Let a payment keep only about six facts."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (kept_facts, payments):
            patch.setattr(module, "ALWAYS_FIT", 1)
        patch.setattr(kept_facts, "MOST_FACT_BYTES", 560)
        yield


def one_payment(max_size: int = 20) -> st.SearchStrategy[list[Event]]:
    """Draw the facts of one payment, possibly more facts than the payment has room for."""

    def about_one(history: list[Event]) -> list[Event]:
        return [
            msgspec.structs.replace(
                event,
                data_id=event.data_id if "refund" in event.type else "pay_1",
                payment_reference="pay_1" if "refund" in event.type else None,
            )
            for event in history
        ]

    return histories(max_size=max_size).map(about_one)


def folded(chunks: list[list[Event]]) -> Pipeline:
    pipeline = Pipeline()
    pipeline.fold(chunks)
    return pipeline


@more
@given(one_payment(), st.data())
def test_the_kept_facts_do_not_depend_on_sequence_or_repetitions_or_chunks(
    history: list[Event], data: st.DataObject
) -> None:
    repeated = data.draw(st.lists(st.sampled_from(history))) if history else []
    arrived = data.draw(st.permutations(history + repeated))
    pipeline = folded(data.draw(chunked(arrived)))
    expected = payment_of("pay_1", {event.event_id: event for event in history})
    assert pipeline.payments == ({"pay_1": expected} if history else {})
    assert pipeline.documents() == folded([history]).documents()
    assert pipeline.aside >= {event.event_id for event in history} - expected.facts.keys()


@more
@given(one_payment(), st.data())
def test_only_entries_of_kept_facts_stand_in_the_journals_of_two_folds_and_in_their_union(
    history: list[Event], data: st.DataObject
) -> None:
    one = folded([[event] for event in history])
    other = folded(data.draw(chunked(data.draw(st.permutations(history)))))
    kept = payment_of("pay_1", {event.event_id: event for event in history})
    due = {subject.entry_id(*ids_of(facts)) for subject, facts in standing_of(kept).facts.items()}
    for entries in (one.entries, other.entries, one.entries | other.entries):
        reversed_ids = {entry.reverses for entry in entries.values() if entry.reverses}
        assert reversed_ids <= entries.keys()
        standing = entries.keys() - reversed_ids - {f"{name}/reversal" for name in reversed_ids}
        assert standing == due
        money = {account: sum_ for account, sum_ in balances(entries).items() if sum_}
        assert money == {a: sum_ for a, sum_ in balances(one.entries).items() if sum_}


@more
@given(one_payment(), st.data())
def test_a_fold_that_crashed_before_its_state_was_written_has_the_same_result(
    history: list[Event], data: st.DataObject
) -> None:
    clean = folded([[event] for event in history])
    done = data.draw(st.integers(0, len(history)))
    crashed = folded([history[:done]])
    crashed.fold(data.draw(chunked(history[done:]))[:1], crash_before_state=True)
    crashed.fold(data.draw(chunked(history[done:])))
    assert crashed.documents() == clean.documents()
    assert crashed.entries == clean.entries


@more
@given(one_payment())
def test_the_snapshot_of_a_changed_payment_is_newer_than_all_earlier_snapshots(
    history: list[Event],
) -> None:
    fold, earlier = PaymentFold("pay_1", None), list[Snapshot]()
    for event in history:
        fold.changed = False
        fold.add(event)
        *_, snapshot = fold.snapshots()
        assert all(snapshot.is_newer_than(each) == fold.changed for each in earlier[-1:])
        assert not any(each.is_newer_than(snapshot) for each in earlier)
        earlier.append(snapshot)


@given(one_payment(max_size=30))
def test_the_kept_facts_fit_but_would_not_fit_with_the_first_fact_that_is_set_aside(
    history: list[Event],
) -> None:
    facts = {event.event_id: event for event in history}
    kept, first_aside = kept_of(facts)
    size = sum(len(msgspec.json.encode(fact)) for fact in kept.values())
    assert size <= kept_facts.MOST_FACT_BYTES or len(kept) == 1
    if first_aside is None:
        assert kept == facts
    else:
        assert size + len(msgspec.json.encode(facts[first_aside[1]])) > kept_facts.MOST_FACT_BYTES
        assert {key_of(fact) < first_aside for fact in kept.values()} <= {True}


def test_too_many_facts_are_an_anomaly_and_facts_that_are_set_aside_post_nothing():
    refunds = [refund(f"evt_{n}", n, 10, refund_id=f"re_{n}") for n in range(9, 1, -1)]
    pipeline = folded([[success(amount=500, order="ord_1")], refunds])
    document = pipeline.documents()["ord_1"]
    (payment,) = document.payments
    assert document.anomalies == payment.anomalies == ("payment_too_large",)
    assert [each.event_id for each in payment.events] == [f"evt_{n}" for n in range(1, 7)]
    assert pipeline.aside == {"evt_7", "evt_8", "evt_9"}
    assert balances(pipeline.entries)["income:refunds", "KZT"] == 50


def test_events_that_are_set_aside_are_reported_each_time_they_are_delivered():
    known = fold_payments([failure(f"evt_{n}", n) for n in range(9)], {}).payments
    again = fold_payments([failure("evt_8", 8)], known)
    assert [event.event_id for event in again.aside] == ["evt_8"]
    assert (again.payments, again.snapshots, again.entries) == ({}, [], [])


def test_a_payment_that_was_stored_before_the_limit_existed_is_trimmed_at_its_next_fact():
    facts = {f"evt_{n}": failure(f"evt_{n}", n) for n in range(9)}
    after = fold_payments([failure("evt_9", 9)], {"pay_1": Payment("pay_1", facts)})
    assert after.payments["pay_1"] == payment_of("pay_1", {**facts, "evt_9": failure("evt_9", 9)})


def test_a_payment_keeps_only_its_first_fact_if_each_fact_is_longer_than_any_real_fact():
    longest = [
        msgspec.structs.replace(failure(f"evt_{n}", n), status="x" * 1_000) for n in range(3)
    ]
    after = fold_payments(longest, {}).payments["pay_1"]
    assert after == payment_of("pay_1", {fact.event_id: fact for fact in longest})
    assert after.facts.keys() == {"evt_0"}


def test_rows_and_snapshots_that_were_written_before_the_limit_existed_can_be_read():
    payment = msgspec.msgpack.encode(["pay_1", {}])
    assert PAYMENTS.decode(payment) == Payment("pay_1")
    snapshot = msgspec.msgpack.encode(["ord_1", "pay_1", 2, None])
    assert SNAPSHOTS.decode(snapshot) == Snapshot("ord_1", "pay_1", 2, None)


def test_eight_facts_with_any_ids_fit():
    """The ledger computes the size of facts only for payments with more than eight facts."""
    worst = "\0" * 512
    fact = success(worst, 2**53 - 1, 2**53 - 1, payment=worst, order=worst, offset=2**63 - 1)
    fact = msgspec.structs.replace(fact, status=worst, payment_reference=worst, partition=2**31 - 1)
    assert 8 * len(msgspec.json.encode(fact)) <= MOST_FACT_BYTES
