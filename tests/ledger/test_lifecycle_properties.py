"""Sequence and repeats of events do not change the result; the journal and the documents match.

An entry stands if it is posted and not reversed.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger import kept_facts, payments
from ledger.accounting.snapshot import JournalSnapshot
from ledger.journal import PLEXY, balances, ids_of, subject_of_entry
from ledger.payments import payment_of, standing_of
from ledger.wire import ENTRIES, EVENTS, ORDER_DOCUMENTS
from tests.ledger.lifecycle_events import lifecycles
from tests.ledger.pipeline import Pipeline, documents_of
from tests.strategies import chunked

more = settings(max_examples=300, deadline=None)


def folded(chunks) -> Pipeline:
    pipeline = Pipeline()
    pipeline.fold(chunks)
    return pipeline


def snapshot_of(entries) -> JournalSnapshot:
    snapshot = JournalSnapshot()
    for entry in entries.values():
        snapshot.read(entry.entry_id.encode(), ENTRIES.encode(entry))
    return snapshot


def money(entries):
    return {account: amount for account, amount in balances(entries).items() if amount}


@more
@given(st.data())
def test_the_orders_are_the_same_however_facts_are_permuted_or_repeated_or_split_into_chunks(data):
    history = data.draw(lifecycles())
    repeated = data.draw(st.lists(st.sampled_from(history))) if history else []
    arrived = data.draw(st.permutations(history + repeated))
    cut = folded(data.draw(chunked(arrived)))
    assert cut.documents() == documents_of(history)


@more
@given(st.data())
def test_every_cut_into_chunks_posts_the_same_entries(data):
    history = data.draw(lifecycles())
    assert folded(data.draw(chunked(history))).entries == folded([[e] for e in history]).entries


@more
@given(st.data())
def test_each_of_two_journals_and_both_together_have_the_same_standing_entries(data):
    history = data.draw(lifecycles())
    one = folded([[event] for event in history])
    other = folded([[event] for event in data.draw(st.permutations(history))])
    due = {
        subject: ids_of(facts)
        for payment in one.payments.values()
        for subject, facts in standing_of(payment).facts.items()
    }
    for entries in (one.entries, other.entries, one.entries | other.entries):
        snapshot = snapshot_of(entries)
        assert snapshot.cut_corrections() == set()
        standing = snapshot.standing()
        assert {
            subject: (entry.event_id, *entry.other_event_ids) for subject, entry in standing.items()
        } == due
        assert all(subject == subject_of_entry(entry) for subject, entry in standing.items())
        assert money(entries) == money(one.entries)


@more
@given(lifecycles())
def test_the_balances_equal_the_totals_of_the_orders(history):
    pipeline = folded([history])
    expected: dict[tuple[str, str], int] = {}
    for document in pipeline.documents().values():
        for currency, totals in document.totals.items():
            for account, amount in (
                (PLEXY, totals.net),
                ("income:sales", -totals.paid),
                ("income:refunds", totals.refunded),
                ("assets:disputed", totals.disputed),
                ("expenses:chargebacks", totals.charged_back),
            ):
                key = (account, currency)
                expected[key] = expected.get(key, 0) + amount
    assert money(pipeline.entries) == {key: each for key, each in expected.items() if each}


@more
@given(st.data())
def test_a_crash_before_the_state_was_written_changes_nothing(data):
    history = data.draw(lifecycles())
    done = data.draw(st.integers(0, len(history)))
    crashed = folded([history[:done]])
    crashed.fold(data.draw(chunked(history[done:]))[:1], crash_before_state=True)
    crashed.fold(data.draw(chunked(history[done:])))
    clean = folded([[event] for event in history])
    assert (crashed.documents(), crashed.entries) == (clean.documents(), clean.entries)


@more
@given(lifecycles())
def test_events_and_entries_and_documents_are_decoded_as_they_were_encoded(history):
    pipeline = folded([history])
    assert [EVENTS.decode(EVENTS.encode(event)) for event in history] == history
    for entry in pipeline.entries.values():
        assert ENTRIES.decode(ENTRIES.encode(entry)) == entry
    for document in pipeline.documents().values():
        assert ORDER_DOCUMENTS.decode(ORDER_DOCUMENTS.encode(document)) == document


@more
@given(data=st.data())
def test_exactly_the_entries_of_the_kept_facts_stand_after_other_facts_are_set_aside(data):
    """An entry that was reversed because other facts replaced its facts never stands again."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (kept_facts, payments):
            patch.setattr(module, "ALWAYS_FIT", 1)
        patch.setattr(kept_facts, "MOST_FACT_BYTES", 900)
        history = data.draw(lifecycles(max_size=16, payments=("pay_1",)))
        one = folded([[event] for event in history])
        other = folded(data.draw(chunked(data.draw(st.permutations(history)))))
        kept = payment_of("pay_1", {event.event_id: event for event in history})
        assert one.documents() == other.documents()
        due = {
            subject.entry_id(*ids_of(facts)) for subject, facts in standing_of(kept).facts.items()
        }
        for entries in (one.entries, other.entries, one.entries | other.entries):
            assert {e.entry_id for e in snapshot_of(entries).standing().values()} == due
            assert money(entries) == money(one.entries)
