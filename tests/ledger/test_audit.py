"""The audit finds no difference in a state that the ledger made, and names each corruption."""

import json
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.audit import check_document, check_order, check_payment, check_seen
from ledger.deduplication import Seen, deduplicate
from ledger.differences import Difference, Kind
from ledger.events import Event, FieldNames
from ledger.journal import REFUNDS, Entry, Posting
from ledger.journal_audit import JournalAudit, differing
from ledger.orders import Order, describe
from ledger.payments import Payment, Snapshot
from ledger.signature import sign
from ledger.truth import Trust, Truth
from ledger.wire import ENTRIES, ORDER_DOCUMENTS, ORDERS, PAYMENTS, SEEN
from tests.ledger.examples import failure, refund, success
from tests.ledger.pipeline import Pipeline
from tests.strategies import chunked, histories

NAMES = FieldNames()
PARTITIONS = 3
SECRET = b"whsec_test"
NOW_S = 1_750_000_000


def partition_of(key: bytes) -> int:
    return sum(key) % PARTITIONS


def body_of(event: Event) -> bytes:
    data: dict[str, Any] = {
        "id": event.data_id,
        "amount": event.amount_minor,
        "currency": event.currency,
    }
    data |= {"merchantReference": event.order_reference} if event.order_reference else {}
    data |= {"payment_id": event.payment_reference} if event.payment_reference else {}
    envelope = {"id": event.event_id, "type": event.type, "created": event.created, "data": data}
    return json.dumps(envelope).encode()


class Log:
    """A log of record in memory, signed like Plexy's."""

    def __init__(self) -> None:
        self.partitions: dict[int, list[Any]] = {p: [] for p in range(PARTITIONS)}

    def append(self, body: bytes, key: bytes, *, secret: bytes = SECRET, **more: Any) -> None:
        partition = more.get("partition", partition_of(key))
        signature = more.get("signature", sign(body, secret, NOW_S)).encode()
        arrived = more.get("arrived", b"%d000" % NOW_S)
        records = self.partitions[partition]
        records.append(
            SimpleNamespace(
                key=key,
                value=body,
                partition=partition,
                offset=len(records),
                timestamp=NOW_S * 1000,
                headers=[("plexy-signature", signature), ("received-at-ms", arrived)],
            )
        )

    def ends(self) -> dict[int, int]:
        return {partition: len(records) for partition, records in self.partitions.items()}


class Ledger:
    """What the workers make of a log: the tables and topics, as bytes."""

    def __init__(self, history: list[Event], cut: Any = lambda events: [events]) -> None:
        self.log = Log()
        for event in history:
            self.log.append(body_of(event), event.event_id.encode())
        self.seen: dict[tuple[int, bytes], bytes] = {}
        events: list[Event] = []
        for partition, records in self.log.partitions.items():
            result = deduplicate(records, {}, NAMES)
            events += result.events
            self.seen |= {(partition, key): SEEN.encode(seen) for key, seen in result.seen.items()}
        # Partitions are read side by side: what comes first in the history is folded first.
        order = {event.event_id: n for n, event in enumerate(history)}
        self.pipeline = Pipeline()
        self.pipeline.fold(cut(sorted(events, key=lambda event: order[event.event_id])))
        self.payments = _encoded(self.pipeline.payments, PAYMENTS)
        self.orders = _encoded(self.pipeline.orders, ORDERS)
        self.documents = _encoded(self.pipeline.documents(), ORDER_DOCUMENTS)
        self.entries = [
            (entry.entry_id.encode(), ENTRIES.encode(entry))
            for entry in self.pipeline.entries.values()
        ]

    def truth(self, *, settled: Mapping[int, int] | None = None) -> Truth:
        truth = Truth(NAMES, Trust(secrets=(SECRET,)), partition_of)
        truth.settled = self.log.ends() if settled is None else settled
        for partition, records in self.log.partitions.items():
            truth.read(partition, records)
            truth.reached(partition, records[-1].offset + 1 if records else 0)
        return truth

    def differences(self, *, settled: Mapping[int, int] | None = None) -> list[Difference]:
        truth = self.truth(settled=settled)
        found = list(truth.faults)
        in_log = {(p, key) for p, seen in truth.seen.items() for key in seen}
        for partition, key in in_log | self.seen.keys():
            found += check_seen(truth, partition, key, self.seen.get((partition, key)))
        for key in {p.encode() for p in truth.facts} | self.payments.keys():
            found += check_payment(truth, 0, key, self.payments.get(key))
        named = {truth.payment(payment_id).order_id.encode() for payment_id in truth.facts}
        for key in named | self.orders.keys():
            found += check_order(truth, 0, key, self.orders.get(key))
        for key in named | self.documents.keys():
            found += check_document(truth, 0, key, self.documents.get(key))
        journal = JournalAudit(truth)
        for entry_key, value in self.entries:
            journal.read(entry_key, value)
        found += journal.differences(truth.facts)
        return found + list(differing(journal.balances()))


def _encoded(values: Mapping[str, Any], wire: Any) -> dict[bytes, bytes]:
    return {key.encode(): wire.encode(value) for key, value in values.items()}


def kinds(ledger: Ledger, **more: Any) -> list[Kind]:
    return sorted(difference.kind for difference in ledger.differences(**more))


@given(st.data())
def test_a_state_that_the_ledger_made_has_no_difference(data: st.DataObject) -> None:
    history = data.draw(histories())
    ledger = Ledger(history, lambda events: data.draw(chunked(events)))
    assert ledger.differences() == []


@given(st.data())
def test_a_state_of_before_the_last_records_has_none_as_long_as_they_are_not_settled(
    data: st.DataObject,
) -> None:
    history = data.draw(histories())
    ledger = Ledger(history)
    settled = ledger.log.ends()
    for event in data.draw(histories(max_size=4)):
        later = msgspec.structs.replace(event, event_id=f"{event.event_id}_later")
        ledger.log.append(body_of(later), later.event_id.encode())
    assert ledger.differences(settled=settled) == []


@given(st.data())
def test_a_state_that_is_ahead_of_what_is_settled_has_none(data: st.DataObject) -> None:
    ledger = Ledger(data.draw(histories()))
    settled = {p: data.draw(st.integers(0, end)) for p, end in ledger.log.ends().items()}
    assert ledger.differences(settled=settled) == []


@given(st.data())
def test_a_state_that_lacks_settled_facts_differs(data: st.DataObject) -> None:
    history = data.draw(histories())
    ledger = Ledger(history)
    late = msgspec.structs.replace(data.draw(st.sampled_from([success(), failure(), refund()])))
    late = msgspec.structs.replace(late, event_id="evt_late", data_id="pay_late")
    late = msgspec.structs.replace(late, payment_reference=None)
    ledger.log.append(body_of(late), b"evt_late")
    found = {difference.kind for difference in ledger.differences()}
    assert found >= {Kind.SEEN_MISSING, Kind.PAYMENT_MISSING, Kind.ORDER_MISSING}


def example() -> Ledger:
    return Ledger(
        [
            success("evt_1", 1, 500, order="ord_1"),
            refund("evt_2", 2, 100),
            failure("evt_3", 1, 70, payment="pay_2", order="ord_1"),
            success("evt_4", 5, 70, payment="pay_3", order="ord_2"),
            success("evt_5", 4, 80, payment="pay_3", order="ord_3"),
        ]
    )


def altered(value: bytes, wire: Any, alter: Any) -> bytes:
    return bytes(wire.encode(alter(wire.decode(value))))


def with_amount(payment: Payment) -> Payment:
    fact = msgspec.structs.replace(payment.facts["evt_1"], amount_minor=501)
    return msgspec.structs.replace(payment, facts=payment.facts | {"evt_1": fact})


def test_the_example_is_clean_and_moves_a_payment():
    ledger = example()
    assert ledger.differences() == []
    assert ORDERS.decode(ledger.orders[b"ord_2"]).payments["pay_3"].payment is None


def test_a_wrong_amount_in_the_table_is_named_with_its_events():
    ledger = example()
    ledger.payments[b"pay_1"] = altered(ledger.payments[b"pay_1"], PAYMENTS, with_amount)
    (found,) = ledger.differences()
    assert (found.kind, found.payment_id, found.order_id) == (
        Kind.PAYMENT_DIFFERS,
        "pay_1",
        "ord_1",
    )
    assert found.detail == "event evt_1: amount_minor: expected 500, got 501"
    assert [event.event_id for event in found.events] == ["evt_1", "evt_2"]


@pytest.mark.parametrize(
    ("alter", "detail"),
    [
        (lambda p: Payment("pay_2", p.facts, p.posted), "it says that it is pay_2"),
        (lambda p: Payment("pay_1", {}, p.posted), "it holds no fact"),
        (
            lambda p: Payment("pay_1", {"evt_1": p.facts["evt_1"]}, {"": "evt_1"}),
            "it lacks event evt_2",
        ),
        (
            lambda p: Payment("pay_1", p.facts | {"evt_9": success("evt_9")}, p.posted),
            "the log has no event evt_9 about it",
        ),
        (
            lambda p: Payment("pay_1", p.facts, {"": "evt_1"}),
            "nothing is posted for refund re_1",
        ),
        (
            lambda p: Payment("pay_1", p.facts, p.posted | {"": "evt_2"}),
            "what is posted for the payment is no fact of it",
        ),
        (
            lambda p: Payment("pay_1", p.facts, p.posted | {"re_9": "evt_2"}),
            "what is posted for refund re_9 is no fact of it",
        ),
    ],
)
def test_each_corruption_of_a_payment_is_named(alter, detail):
    ledger = example()
    ledger.payments[b"pay_1"] = altered(ledger.payments[b"pay_1"], PAYMENTS, alter)
    (found,) = ledger.differences()
    assert (found.kind, found.detail) == (Kind.PAYMENT_DIFFERS, detail)


def test_a_wrong_fact_that_stands_posted_is_named():
    ledger = example()
    ledger.payments[b"pay_3"] = altered(
        ledger.payments[b"pay_3"], PAYMENTS, lambda p: Payment("pay_3", p.facts, {"": "evt_4"})
    )
    (found,) = ledger.differences()
    assert found.detail == "event evt_4 is posted for the payment, event evt_5 holds"


def _of_order(order: Order, payment_id: str, **changes: Any) -> Order:
    held = msgspec.structs.replace(order.payments[payment_id], **changes)
    return Order(order.order_id, order.payments | {payment_id: held})


def _paid(order: Order, amount: int) -> Order:
    payment = order.payments["pay_1"].payment
    return _of_order(order, "pay_1", payment=msgspec.structs.replace(payment, amount=amount))


@pytest.mark.parametrize(
    ("alter", "detail"),
    [
        (lambda o: Order("ord_9", o.payments), "it says that it is ord_9"),
        (lambda o: _paid(o, 400), "payment pay_1: amount: expected 500, got 400"),
        (
            lambda o: _of_order(o, "pay_1", version=7),
            "payment pay_1: version: expected 2, got 7",
        ),
        (
            lambda o: _of_order(o, "pay_1", payment=None),
            "payment pay_1: it has left the order, and belongs to it",
        ),
        (
            lambda o: Order(o.order_id, {"pay_1": o.payments["pay_1"]}),
            "payment pay_2: it is not in the order",
        ),
        (
            lambda o: Order(
                o.order_id, o.payments | {"pay_9": Snapshot("ord_1", "pay_9", 1, None)}
            ),
            "payment pay_9: the log has no fact about it",
        ),
        (
            lambda o: Order(
                o.order_id, o.payments | {"pay_3": Snapshot("ord_1", "pay_3", 2, None)}
            ),
            "payment pay_3: it has left the order, and never was in it",
        ),
        (
            lambda o: _of_order(o, "pay_1", order_id="ord_2"),
            "payment pay_1: its snapshot is of payment pay_1 in order ord_2",
        ),
    ],
)
def test_each_corruption_of_an_order_is_named(alter, detail):
    ledger = example()
    ledger.orders[b"ord_1"] = altered(ledger.orders[b"ord_1"], ORDERS, alter)
    (found,) = ledger.differences()
    assert (found.kind, found.order_id, found.detail) == (Kind.ORDER_DIFFERS, "ord_1", detail)
    assert found.events or "pay_9" in detail


def test_a_withdrawal_by_a_fact_that_does_not_exist_is_named():
    ledger = example()
    ledger.orders[b"ord_2"] = altered(
        ledger.orders[b"ord_2"], ORDERS, lambda o: _of_order(o, "pay_3", version=3)
    )
    (found,) = ledger.differences()
    assert found.detail == "payment pay_3: it has left the order by fact 3 of 2"


def test_an_order_that_holds_what_moved_away_is_named():
    ledger = example()
    stale = Ledger([success("evt_4", 5, 70, payment="pay_3", order="ord_2")])
    ledger.orders[b"ord_2"] = stale.orders[b"ord_2"]
    (found,) = ledger.differences()
    assert (found.kind, found.detail) == (Kind.ORDER_DIFFERS, "payment pay_3: it lacks event evt_5")


def test_a_document_that_does_not_follow_from_its_payments_is_named():
    ledger = example()
    ledger.documents[b"ord_1"] = altered(
        ledger.documents[b"ord_1"],
        ORDER_DOCUMENTS,
        lambda document: msgspec.structs.replace(document, status="paid"),
    )
    (found,) = ledger.differences()
    assert found.kind == Kind.DOCUMENT_DIFFERS
    assert found.detail == "status: expected 'partially_refunded', got 'paid'"


def test_a_document_that_stands_for_an_order_that_all_payments_left_is_named():
    ledger = example()
    stale = Ledger([success("evt_4", 5, 70, payment="pay_3", order="ord_2")])
    ledger.documents[b"ord_2"] = stale.documents[b"ord_2"]
    assert kinds(ledger) == [Kind.DOCUMENT_DIFFERS]


@pytest.mark.parametrize(
    ("holder", "key", "kind"),
    [
        ("payments", b"pay_2", Kind.PAYMENT_MISSING),
        ("orders", b"ord_3", Kind.ORDER_MISSING),
        ("documents", b"ord_3", Kind.DOCUMENT_MISSING),
    ],
)
def test_a_key_that_is_gone_is_missing(holder, key, kind):
    ledger = example()
    del getattr(ledger, holder)[key]
    assert kinds(ledger) == [kind]


@pytest.mark.parametrize(
    ("holder", "kind"),
    [
        ("payments", Kind.PAYMENT_UNEXPLAINED),
        ("orders", Kind.ORDER_UNEXPLAINED),
        ("documents", Kind.DOCUMENT_UNEXPLAINED),
    ],
)
def test_a_key_that_the_log_does_not_have_is_unexplained(holder, kind):
    ledger = example()
    other = Ledger([success("evt_9", payment="pay_9", order="ord_9")])
    getattr(ledger, holder).update(getattr(other, holder))
    assert kinds(ledger) == [kind]


@pytest.mark.parametrize("holder", ["payments", "orders", "documents"])
def test_bytes_that_nobody_can_read_are_named(holder):
    ledger = example()
    values = getattr(ledger, holder)
    key = min(values)
    values[key] = b"\xc1"
    (found,) = ledger.differences()
    assert found.kind.endswith("_differs")
    assert found.detail == "it can't be read"


def test_what_is_remembered_of_an_id_is_judged():
    ledger = example()
    place = (partition_of(b"evt_1"), b"evt_1")
    first = SEEN.decode(ledger.seen[place])
    ledger.seen[place] = SEEN.encode(Seen(b"0" * 16, first.offset, first.timestamp_ms))
    (found,) = ledger.differences()
    assert (found.kind, found.subject) == (Kind.SEEN_DIFFERS, "event evt_1")
    assert (found.payment_id, found.order_id) == ("pay_1", "ord_1")
    del ledger.seen[place]
    assert kinds(ledger) == [Kind.SEEN_MISSING]
    ledger = example()
    ledger.seen[0, b"evt_9"] = SEEN.encode(first)
    assert kinds(ledger) == [Kind.SEEN_UNEXPLAINED]


def _forge(entry: Entry, **changes: Any) -> tuple[bytes, bytes]:
    forged = msgspec.structs.replace(entry, **changes)
    return forged.entry_id.encode(), ENTRIES.encode(forged)


def test_a_forged_entry_is_named_with_the_accounts_that_it_skews():
    ledger = example()
    entry = ledger.pipeline.entries["payment/pay_1/evt_1"]
    ledger.entries.append(_forge(entry, entry_id="payment/pay_1/evt_9", event_id="evt_9"))
    found = {difference.kind: difference for difference in ledger.differences()}
    assert found.keys() == {Kind.ENTRY_UNEXPLAINED, Kind.BALANCE_DIFFERS}
    assert found[Kind.ENTRY_UNEXPLAINED].subject == "entry payment/pay_1/evt_9"
    assert [str(each) for each in ledger.differences()][1:] == [
        f"balance_differs  account {account}: expected {log} by the log, got {got} in the journal"
        for account, log, got in (
            ("assets:plexy KZT", 480, 980),
            ("income:sales KZT", -580, -1080),
        )
    ]


def test_an_entry_with_other_money_under_a_known_id_is_named():
    ledger = example()
    entry = ledger.pipeline.entries["refund/pay_1/re_1/evt_2"]
    other = (Posting(REFUNDS, 90, "KZT"), Posting("assets:elsewhere", -90, "KZT"))
    ledger.entries.append(_forge(entry, postings=other))
    found = [each for each in ledger.differences() if each.kind != Kind.BALANCE_DIFFERS]
    assert [(each.kind, each.subject) for each in found] == [
        (Kind.ENTRY_DIFFERS, "entry refund/pay_1/re_1/evt_2")
    ]
    assert found[0].detail == (
        "expected income:refunds 100 KZT and assets:plexy -100 KZT, "
        "got income:refunds 90 KZT and assets:elsewhere -90 KZT"
    )


def test_an_entry_that_does_not_balance_is_named():
    ledger = example()
    key, value = _forge(ledger.pipeline.entries["payment/pay_1/evt_1"])
    ledger.entries.append((key, value.replace(b'"amount":500', b'"amount":501')))
    assert ledger.entries[-1][1] != value
    (found,) = ledger.differences()
    assert (found.kind, found.detail) == (
        Kind.ENTRY_DIFFERS,
        "it can't be read, or does not balance",
    )


def test_an_entry_under_another_key_is_named():
    ledger = example()
    ledger.entries.append((b"another", ledger.entries[0][1]))
    assert Kind.ENTRY_DIFFERS in kinds(ledger)


@pytest.mark.parametrize("gone", range(5))
def test_an_entry_that_is_gone_is_named(gone):
    ledger = example()
    # A payment, its refund; another payment, its reversal and what stands instead.
    assert len(ledger.entries) == 5
    del ledger.entries[gone]
    found = kinds(ledger)
    assert Kind.BALANCE_DIFFERS in found
    assert {Kind.ENTRY_MISSING, Kind.ENTRY_DIFFERS} & set(found)


def test_entries_that_come_again_change_nothing():
    ledger = example()
    ledger.entries *= 3
    assert ledger.differences() == []


def test_money_that_is_posted_twice_is_named():
    ledger = Ledger([success("evt_1", 1, 5), success("evt_2", 2, 5)])
    (first,) = ledger.entries
    other = Ledger([success("evt_2", 2, 5), success("evt_1", 1, 5)])
    event = next(e for e in ledger.truth().facts["pay_1"].values() if e.event_id not in str(first))
    entry = next(iter(other.pipeline.entries.values()))
    second = _forge(
        entry,
        entry_id=f"payment/pay_1/{event.event_id}",
        event_id=event.event_id,
        created=event.created,
        partition=event.partition,
        offset=event.offset,
    )
    ledger.entries.append(second)
    found = ledger.differences()
    assert sorted({each.kind for each in found}) == [Kind.BALANCE_DIFFERS, Kind.ENTRY_DIFFERS]
    assert "stand posted: evt_1, evt_2" in str(found[0])


def _append(ledger: Ledger, body: bytes, key: bytes, **more: Any) -> list[Difference]:
    """Append a record that no fold has seen, and that none needs to have."""
    settled = ledger.log.ends()
    ledger.log.append(body, key, **more)
    return ledger.differences(settled=settled)


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        ({"secret": b"whsec_other"}, "signature_mismatch"),
        ({"signature": ""}, "signature_missing"),
        ({"signature": "t=1"}, "signature_malformed"),
        ({"arrived": b"%d000" % (NOW_S + 301)}, "timestamp_out_of_tolerance"),
        ({"arrived": b""}, "arrival_unknown"),
        ({"arrived": "²".encode()}, "arrival_unknown"),
    ],
)
def test_a_record_whose_signature_is_not_good_is_named(more, fault):
    event = success("evt_9", payment="pay_9", order="ord_9")
    ledger = example()
    (found,) = _append(ledger, body_of(event), b"evt_9", **more)
    assert (found.kind, found.detail) == (Kind.SIGNATURE_INVALID, fault)
    place = (partition_of(b"evt_9"), len(ledger.log.partitions[partition_of(b"evt_9")]) - 1)
    assert found.subject == f"record plexy.webhooks[{place[0]}]@{place[1]}, event evt_9"
    assert (found.payment_id, found.order_id) == ("pay_9", "ord_9")


def test_a_record_that_is_no_event_is_named_by_its_key():
    (found,) = _append(example(), b"{", b"evt_9", signature="")
    assert found.subject.endswith(", key evt_9")


def test_another_body_under_a_known_id_is_named():
    (found,) = _append(example(), body_of(success("evt_1", amount=9)), b"evt_1", secret=b"other")
    assert (found.kind, found.payment_id) == (Kind.SIGNATURE_INVALID, "pay_1")


def test_a_record_in_another_partition_than_its_keys_is_named():
    right = partition_of(b"evt_9")
    body = body_of(success("evt_9", payment="pay_9"))
    (found,) = _append(example(), body, b"evt_9", partition=(right + 1) % PARTITIONS)
    assert (found.kind, found.detail) == (
        Kind.RECORD_MISPLACED,
        f"its key belongs into partition {right}",
    )


def test_signatures_of_before_an_offset_are_not_checked():
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
    truth = Truth(NAMES, None, partition_of)
    for partition, records in ledger.log.partitions.items():
        truth.read(partition, records)
    assert truth.faults == []


def test_a_hole_in_the_log_is_named():
    ledger = Ledger([success(f"evt_{n}", payment=f"pay_{n}") for n in range(9)])
    del ledger.log.partitions[0][0]
    (found,) = ledger.truth().faults
    assert str(found) == "log_incomplete  plexy.webhooks[0]: offsets 0 to 0 are not there"


def test_a_log_that_ends_before_its_end_is_named():
    truth = example().truth()
    truth.reached(0, 100)
    assert [fault.kind for fault in truth.faults] == [Kind.LOG_INCOMPLETE]
    truth.reached(0, 1)
    assert "ends at offset 1" in truth.faults[-1].detail


def test_a_document_is_what_describes_the_order():
    ledger = example()
    for key, value in ledger.documents.items():
        order = ORDERS.decode(ledger.orders[key])
        assert ORDER_DOCUMENTS.decode(value) == describe(order)
