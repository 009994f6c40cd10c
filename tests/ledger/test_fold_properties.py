"""No permutation or repetition of any events changes the orders, and the journal balances."""

from collections import defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.events import PAYMENT_SUCCEEDED, REFUND_SUCCEEDED, Event
from ledger.journal import (
    PLEXY,
    REFUNDS,
    SALES,
    Entry,
    Subject,
    balances,
    ids_of,
    subject_of_entry,
)
from ledger.orders import OrderDocument
from ledger.payments import standing_of
from tests.ledger.pipeline import Pipeline, documents_of
from tests.strategies import chunked, histories

more = settings(max_examples=300, deadline=None)


@more
@given(st.data())
def test_every_permutation_gives_the_same_orders(data: st.DataObject) -> None:
    history = data.draw(histories())
    shuffled = data.draw(st.permutations(history))
    one, other = Pipeline(), Pipeline()
    one.fold([event] for event in history)
    other.fold([event] for event in shuffled)
    assert other.documents() == one.documents()
    # Corrections depend on the sequence of arrival, so a pipeline may have entries that the other
    # pipeline lacks. The entries that both pipelines have are equal.
    assert all(one.entries.get(key, entry) == entry for key, entry in other.entries.items())


@more
@given(st.data())
def test_every_order_knows_the_payments_that_ever_named_it(data: st.DataObject) -> None:
    """The history of an order must be complete, in whatever sequence the events arrive."""
    history = data.draw(histories())
    pipeline = Pipeline()
    pipeline.fold(data.draw(chunked(data.draw(st.permutations(history)))))
    for event in history:
        if event.order_reference is not None:
            assert event.payment_id in pipeline.orders[event.order_reference].payments


@more
@given(st.data())
def test_folds_in_different_sequences_leave_the_same_entry_standing_for_each_subject(
    data: st.DataObject,
) -> None:
    """A subject is a movement of money; its standing entry is posted and not reversed.

    Each journal, and both journals together, have the same standing entries. So a reader may switch
    from one journal to the other journal.
    """
    history = data.draw(histories())
    one, other = Pipeline(), Pipeline()
    one.fold([event] for event in history)
    other.fold([event] for event in data.draw(st.permutations(history)))
    due = {
        subject: ids_of(facts)
        for payment in one.payments.values()
        for subject, facts in standing_of(payment).facts.items()
    }
    for entries in (one.entries, other.entries, one.entries | other.entries):
        assert _standing(entries) == due
        assert _money(entries) == _money(one.entries)


def _money(entries: dict[str, Entry]) -> dict[tuple[str, str], int]:
    """Return the balances that are not zero; a correction may leave an account with zero."""
    return {account: amount for account, amount in balances(entries).items() if amount}


def _standing(entries: dict[str, Entry]) -> dict[Subject, tuple[str, ...]]:
    """Return the event ids of each subject's only standing entry."""
    reversed_ids = {entry.reverses for entry in entries.values() if entry.reverses}
    assert reversed_ids <= entries.keys()
    standing: dict[Subject, tuple[str, ...]] = {}
    for entry_id, entry in entries.items():
        if entry.reverses is None and entry_id not in reversed_ids:
            events = (entry.event_id, *entry.other_event_ids)
            assert standing.setdefault(subject_of_entry(entry), events) == events
    return standing


@more
@given(st.data())
def test_every_duplication_gives_the_same_orders(data: st.DataObject) -> None:
    history = data.draw(histories())
    repeated = data.draw(st.lists(st.sampled_from(history))) if history else []
    mixed = data.draw(st.permutations(history + repeated))
    assert documents_of(mixed) == documents_of(history)


@more
@given(st.data())
def test_every_cut_into_chunks_gives_the_same_orders_and_entries(data: st.DataObject) -> None:
    history = data.draw(histories())
    one_by_one, cut = Pipeline(), Pipeline()
    one_by_one.fold([event] for event in history)
    cut.fold(data.draw(chunked(history)))
    assert cut.documents() == one_by_one.documents()
    assert cut.entries == one_by_one.entries


@more
@given(st.data())
def test_a_fold_that_crashed_before_its_state_was_written_reaches_the_same_state(
    data: st.DataObject,
) -> None:
    history = data.draw(histories())
    done = data.draw(st.integers(0, len(history)))
    crashed_at = data.draw(st.integers(done, len(history)))
    clean, crashed = Pipeline(), Pipeline()
    clean.fold([event] for event in history)
    crashed.fold([history[:done]])
    crashed.fold(data.draw(chunked(history[done:crashed_at]))[:1], crash_before_state=True)
    crashed.fold(data.draw(chunked(history[done:])))
    assert crashed.documents() == clean.documents()
    assert crashed.entries == clean.entries


@more
@given(histories(), st.data())
def test_old_snapshots_that_are_redelivered_change_nothing(
    history: list[Event], data: st.DataObject
) -> None:
    pipeline = Pipeline()
    snapshots = []
    for event in history:
        before = dict(pipeline.payments)
        pipeline.fold([[event]])
        replay = Pipeline()
        replay.payments = before
        replay.publish = snapshots.extend  # type: ignore[method-assign]
        replay.fold([[event]])
    documents = pipeline.documents()
    if snapshots:
        pipeline.publish(data.draw(st.lists(st.sampled_from(snapshots))))
    assert pipeline.documents() == documents


@more
@given(histories())
def test_totals_equal_an_independent_sum_over_the_facts(history: list[Event]) -> None:
    paid, refunded = _sums(history)
    documents = documents_of(history).values()
    for currency in ("KZT", "USD"):
        totals = [
            document.totals[currency] for document in documents if currency in document.totals
        ]
        assert sum(total.paid for total in totals) == paid[currency]
        assert sum(total.refunded for total in totals) == refunded[currency]
        assert all(total.net == total.paid - total.refunded for total in totals)


@more
@given(histories())
def test_entries_sum_to_zero_and_the_balances_equal_an_independent_sum_over_the_facts(
    history: list[Event],
) -> None:
    pipeline = Pipeline()
    pipeline.fold([history])
    paid, refunded = _sums(history)
    sums = balances(pipeline.entries)
    for currency in ("KZT", "USD"):
        assert sum(amount for (_, code), amount in sums.items() if code == currency) == 0
        assert -sums.get((SALES, currency), 0) == paid[currency]
        assert sums.get((REFUNDS, currency), 0) == refunded[currency]
        assert sums.get((PLEXY, currency), 0) == paid[currency] - refunded[currency]


@more
@given(histories())
def test_the_versions_of_orders_count_their_facts_and_all_lists_are_sorted(
    history: list[Event],
) -> None:
    documents = documents_of(history)
    assert sum(document.version for document in documents.values()) == len(history)
    for document in documents.values():
        _assert_sorted(document)


def _assert_sorted(document: OrderDocument) -> None:
    assert list(document.totals) == sorted(document.totals)
    assert list(document.anomalies) == sorted(set(document.anomalies))
    ids = [payment.payment_id for payment in document.payments]
    assert ids == sorted(ids)
    for payment in document.payments:
        events = [(event.created, event.event_id) for event in payment.events]
        assert events == sorted(events)
        refunds = [(refund.created, refund.refund_id) for refund in payment.refunds]
        assert refunds == sorted(refunds)


def _sums(history: list[Event]) -> tuple[dict[str, int], dict[str, int]]:
    """Sum the money by the same rules as the ledger, but without the ledger's code."""
    success: dict[str, Event] = {}
    refunds: dict[tuple[str, str], Event] = {}
    for event in sorted(history, key=lambda e: (e.created, e.event_id)):
        payment = event.payment_reference or event.data_id
        if event.type == PAYMENT_SUCCEEDED:
            success.setdefault(payment, event)
        elif event.type == REFUND_SUCCEEDED:
            own = event.data_id if event.data_id != payment else event.event_id
            refunds.setdefault((payment, own), event)
    paid: dict[str, int] = defaultdict(int)
    refunded: dict[str, int] = defaultdict(int)
    for event in success.values():
        paid[event.money.currency] += event.money.amount_minor
    for event in refunds.values():
        refunded[event.money.currency] += event.money.amount_minor
    return paid, refunded
