"""An order's document is the same whether the order has one row or many rows in the table."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger import large_orders, order_chunks, orders
from ledger.anomalies import ANY_ANOMALY, AnomalousOrders, changes_of, read_key
from ledger.events import Event
from ledger.large_orders import LargeOrder, OrderRows, is_order_key, order_of
from ledger.orders import MOST_PAYMENT_BYTES, Order, describe, describe_whole, tally_of
from ledger.payments import Snapshot, describe_placed, fold_payments, payment_of
from ledger.payments import describe as describe_payment
from ledger.verification.gathered_orders import faults, gather, whole_order
from ledger.wire import ORDERS
from tests.ledger.examples import failure, refund, success
from tests.ledger.pipeline import MemoryRows, OrdersHop, Pipeline
from tests.strategies import chunked, histories

more = settings(max_examples=200, deadline=None)


@pytest.fixture(scope="module", autouse=True)
def _small_bounds():
    """Limit a document, and the single row of a small order, to one or two payments."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(orders, "_ALWAYS_FIT_EVENTS", 0)
        for module in (orders, large_orders):
            patch.setattr(module, "MOST_PAYMENT_BYTES", 500)
        patch.setattr(order_chunks, "MOST_ROW_BYTES", 200)
        yield


def snapshots_of(history: list[Event], cut: list[list[Event]]) -> list[Snapshot]:
    """Return the snapshots that the agent ``payments`` publishes for these chunks."""
    payments, told = {}, list[Snapshot]()
    for chunk in cut:
        folded = fold_payments(chunk, payments)
        payments |= folded.payments
        told += folded.snapshots
    assert history or not told
    return told


def assert_sound(hop: OrdersHop) -> None:
    """Assert that the rows of each large order are consistent and match the order's document."""
    for value in gather(hop.rows).values():
        state = ORDERS.decode(value)
        whole = whole_order(state)
        if isinstance(state, LargeOrder):
            assert list(faults(state, whole)) == []
        assert hop.documents.get(state.order_id) == describe(whole)


@more
@given(histories(), st.data())
def test_the_documents_are_the_same_however_events_are_ordered_or_repeated_or_split_into_chunks(
    history: list[Event], data: st.DataObject
) -> None:
    one, other = Pipeline(), Pipeline()
    one.fold([event] for event in history)
    repeated = data.draw(st.lists(st.sampled_from(history))) if history else []
    other.fold(data.draw(chunked(data.draw(st.permutations(history + repeated)))))
    assert other.documents() == one.documents()
    assert_sound(one.hop)
    assert_sound(other.hop)


@more
@given(histories(), st.data())
def test_the_number_of_rows_of_an_order_changes_no_document(
    history: list[Event], data: st.DataObject
) -> None:
    cut = data.draw(chunked(history))
    with pytest.MonkeyPatch.context() as patch:
        documents = []
        for most in (0, 200, 10**9):
            patch.setattr(order_chunks, "MOST_ROW_BYTES", most)
            pipeline = Pipeline()
            pipeline.fold(cut)
            documents.append(pipeline.documents())
    assert documents[0] == documents[1] == documents[2]


@more
@given(histories(), st.data())
def test_a_crash_between_any_two_rows_changes_nothing(
    history: list[Event], data: st.DataObject
) -> None:
    """The records are folded again in other chunks, on top of the rows that the crash left."""
    told = snapshots_of(history, [history[n : n + 2] for n in range(0, len(history), 2)])
    clean, crashed = OrdersHop(), OrdersHop()
    for each in clean.publish(told):
        clean.fold([each])
    arrived = crashed.publish(told)
    done = 0
    for _ in range(data.draw(st.integers(1, 3))):
        end = data.draw(st.integers(done, len(arrived)))
        crashed.fold(arrived[done:end], rows_written=data.draw(st.integers(0, 20)))
        for state in map(ORDERS.decode, gather(crashed.rows).values()):
            if isinstance(state, LargeOrder):
                assert list(faults(state, whole_order(state))) == []
        middle = data.draw(st.integers(done, end))
        crashed.fold(arrived[done:middle])
        done = middle
    crashed.fold(arrived[done:])
    assert crashed.documents == clean.documents
    assert_sound(crashed)


@more
@given(histories(), st.data())
def test_old_snapshots_that_are_redelivered_change_no_row(
    history: list[Event], data: st.DataObject
) -> None:
    told = snapshots_of(history, [[event] for event in history])
    hop = OrdersHop()
    for each in hop.publish(told):
        hop.fold([each])
    rows, documents = dict(hop.rows), dict(hop.documents)
    if told:
        hop.fold(hop.publish(data.draw(st.lists(st.sampled_from(told)))))
    assert (dict(hop.rows), hop.documents) == (rows, documents)


@settings(max_examples=100, deadline=None)
@given(histories(), st.data())
def test_reading_all_rows_and_following_the_changes_give_the_same_lists_of_anomalies(
    history: list[Event], data: st.DataObject
) -> None:
    pipeline, followed, taken = Pipeline(), AnomalousOrders(), AnomalousOrders()
    for chunk in data.draw(chunked(history)):
        before = dict(pipeline.orders)
        pipeline.fold([chunk])
        now = {name: order for name, order in pipeline.orders.items() if before.get(name) != order}
        followed.change(changes_of(now, before))
    for key, row in pipeline.hop.rows.items():
        taken.take(key, row)
    assert taken.counts() == followed.counts()
    assert list(taken.latest(ANY_ANOMALY, None)) == list(followed.latest(ANY_ANOMALY, None))
    listed = {each.order_id for each in pipeline.documents().values() if each.anomalies}
    assert {read_key(key)[1] for key in taken.latest(ANY_ANOMALY, None)} == listed


def many(number: int, order: str = "ord_1", created: int = 5) -> list[Event]:
    return [
        success(f"evt_{n}", created + n, 100, payment=f"pay_{n:05}", order=order, offset=n)
        for n in range(number)
    ]


def test_a_summary_counts_all_payments_and_shows_the_payments_of_the_first_and_last_event():
    pipeline = Pipeline()
    pipeline.fold([many(9), [refund("evt_r", 99, 150, payment="pay_00003", order="ord_1")]])
    document = pipeline.documents()["ord_1"]
    assert [each.payment_id for each in document.payments] == ["pay_00000", "pay_00003"]
    assert (document.first_event, document.last_event, document.version) == (5, 99, 10)
    assert document.totals["KZT"].net == 750
    assert document.status == "partially_refunded"
    assert document.anomalies == ("refund_exceeds_payment",)
    assert msgspec.to_builtins(document.summary) == {
        "payments": 9,
        "statuses": {"succeeded": 9},
        "anomalies": {"refund_exceeds_payment": 1},
    }


def test_an_order_that_becomes_small_lists_its_payments_and_an_empty_order_has_no_document():
    pipeline = Pipeline()
    pipeline.fold([many(4)])
    assert pipeline.documents()["ord_1"].summary
    for left in (3, 2, 1, 0):
        moved = failure(f"evt_m{left}", 1, payment=f"pay_{left:05}", order="ord_2")
        pipeline.fold([[moved]])
        document = pipeline.documents().get("ord_1")
        listed = [each.payment_id for each in document.payments] if document else []
        if left <= 2:
            assert listed == [f"pay_{n:05}" for n in range(left)]
            assert document is None or document.summary is msgspec.UNSET
    assert "ord_1" not in pipeline.documents()
    assert_sound(pipeline.hop)


def test_a_fold_reads_and_writes_the_same_number_of_rows_for_a_large_and_for_a_huge_order():
    """The cost of a fold must not grow with the size of the order."""

    class Counted(MemoryRows):
        touched = 0

        def get(self, *key):
            Counted.touched += 1
            return super().get(*key)

        def keys(self, *bounds, **more):
            for key in super().keys(*bounds, **more):
                Counted.touched += 1
                yield key

    costs = []
    for number in (10, 2_000):
        pipeline = Pipeline()
        pipeline.hop.rows = Counted()
        pipeline.fold([many(number)])
        Counted.touched = 0
        again = [refund(f"evt_r{n}", 9, 1, payment=f"pay_{n:05}") for n in range(5)]
        snapshots = fold_payments(again, pipeline.payments).snapshots
        written = pipeline.hop.fold(pipeline.hop.publish(snapshots))
        costs.append((Counted.touched, written))
    assert costs[0] == costs[1]


def test_an_order_with_few_events_always_lists_its_payments_even_with_the_longest_ids():
    worst = "\0" * 512
    event = success(worst, 2**53 - 1, 2**53 - 1, payment=worst, order=worst, offset=2**63 - 1)
    back = refund(worst[:-1] + "\1", 2**53 - 1, 2**53 - 1, refund_id=worst[:-1] + "\2")
    back = msgspec.structs.replace(back, payment_reference=worst)
    (one,) = fold_payments([event], {}).snapshots
    (two,) = fold_payments([event, back], {}).snapshots
    alone, both = (tally_of("", [each]).payment_bytes for each in (one, two) if each.payment)
    assert 16 * max(alone, both - alone) <= MOST_PAYMENT_BYTES


@pytest.mark.parametrize(
    ("event_id", "payment_id"),
    [("{}", "p"), ("{:\0>512}", "p"), ("{:a>512}", "p"), ("{:a>50}", "p")],
)
def test_the_two_payments_that_a_summary_shows_take_less_than_a_mebibyte(event_id, payment_id):
    """The facts that a payment keeps take about 390 KiB in a document, whatever the ids are."""
    numbers = range(3_000)
    facts = {
        event_id.format(n): refund(event_id.format(n), n, 1, refund_id=payment_id, payment=None)
        for n in numbers
    }
    payment = payment_of(payment_id, facts)
    assert payment.first_aside
    assert len(msgspec.json.encode(describe_payment(payment))) < 500_000


def test_no_row_of_an_order_is_mistaken_for_a_row_of_another_order():
    """An id may be any text, but no text contains the byte that separates the ids in a key."""
    ids = ["a", "ap", "a\x7f", "aÿ", "aÿppay_00000", "b"]
    pipeline = Pipeline()
    for order in ids:
        events = [
            success(f"{order}{n}", n + 1, 1, payment=f"{order} {n}", order=order) for n in range(4)
        ]
        pipeline.fold([events])
    assert {key.decode() for key in pipeline.hop.rows if is_order_key(key)} == set(ids)
    assert_sound(pipeline.hop)
    for order in ids:
        head = ORDERS.decode(pipeline.hop.rows[order.encode()])
        assert isinstance(head, LargeOrder)
        found = [name for name, _ in OrderRows(head, pipeline.hop.rows).after("")]
        assert found == sorted(f"{order} {n}" for n in range(4))


@given(histories())
def test_a_document_with_a_summary_equals_the_full_document_except_for_its_payments(
    history: list[Event],
) -> None:
    payments = fold_payments(history, {}).payments.values()
    order = order_of("ord_1", map(describe_placed, payments))
    whole, document = describe_whole(order), describe(order)
    assert (whole is None) == (document is None)
    if whole and document and document.summary is not msgspec.UNSET:
        kept = msgspec.structs.asdict(whole) | {"payments": document.payments}
        assert msgspec.structs.asdict(document) == kept | {"summary": document.summary}
        assert document.summary.payments == len(whole.payments)


class TestIdOfAPayment:
    """A payment that names no order forms an order with the payment's id.

    Another payment may name an order with the same id.
    """

    def test_an_order_with_the_id_of_one_of_its_payments_has_an_anomaly(self):
        pipeline = Pipeline()
        pipeline.fold([[success("evt_1", payment="A"), success("evt_2", payment="p", order="A")]])
        assert pipeline.documents()["A"].anomalies == ("order_id_is_payment_id",)

    def test_a_payment_with_the_orders_id_is_no_anomaly_if_it_has_left_or_is_the_only_payment(
        self,
    ):
        pipeline = Pipeline()
        pipeline.fold([[success("evt_1", payment="A")]])
        assert pipeline.documents()["A"].anomalies == ()
        pipeline.fold([[success("evt_2", payment="p", order="A")]])
        pipeline.fold([[success("evt_3", payment="A", order="B")]])
        assert pipeline.documents()["A"].anomalies == ()

    def test_a_large_order_with_the_id_of_one_of_its_payments_also_has_the_anomaly(self):
        pipeline = Pipeline()
        pipeline.fold([many(5, "A"), [success("evt_a", payment="A")]])
        document = pipeline.documents()["A"]
        assert document.summary
        assert document.anomalies == ("order_id_is_payment_id",)


def test_payment_rows_that_a_crash_left_without_their_order_row_do_not_count_as_an_order():
    hop = OrdersHop()
    hop.rows[b"A\xffppay_1"] = b"anything"
    assert gather(hop.rows) == {}


def test_a_small_order_and_a_large_order_are_each_decoded_to_their_own_type():
    for order in (Order("{"), LargeOrder("{", 1, tally_of("{", []))):
        assert ORDERS.decode(ORDERS.encode(order)) == order
