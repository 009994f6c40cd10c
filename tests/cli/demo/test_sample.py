"""The demo's sample deliveries have the expected outcome; these tests use no Kafka and no HTTP."""

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from cli.demo import sample
from ledger.deduplication import deduplicate
from ledger.envelope import Envelope, decode_envelope
from ledger.events import Reading
from ledger.rejected import rejected_record
from ledger.rejections import Rejection
from ledger.wire import ORDER_DOCUMENTS
from tests.ledger.pipeline import documents_of

_ARRIVED_MS = 1_767_744_000_000
_CODES = {
    "forged": "signature_mismatch",
    "missing": "signature_missing",
    "stale": "timestamp_out_of_tolerance",
}


class _Record(NamedTuple):
    key: bytes | None
    value: bytes | None
    partition: int
    offset: int
    timestamp: int
    headers: tuple[tuple[str, bytes], ...] = ()


def _judge(delivery: sample.SampleDelivery) -> Envelope | sample.RefusedDelivery | Rejection:
    if delivery.signature != "good":
        return sample.RefusedDelivery(delivery.name, 401, _CODES[delivery.signature])
    return decode_envelope(delivery.raw)


def _accepted(deliveries: Iterable[sample.SampleDelivery]) -> list[_Record]:
    judged = [(delivery, _judge(delivery)) for delivery in deliveries]
    return [
        _Record(verdict.id.encode(), delivery.raw, 0, offset, _ARRIVED_MS)
        for offset, (delivery, verdict) in enumerate(judged)
        if isinstance(verdict, Envelope)
    ]


def test_the_accepted_deliveries_produce_the_expected_orders():
    result = deduplicate(_accepted(sample.deliveries()), {}, Reading())
    documents = {
        order_id: sample.without_places(msgspec.json.decode(ORDER_DOCUMENTS.encode(document)))
        for order_id, document in documents_of([*result.events, *result.notes]).items()
    }
    assert documents == sample.expected().orders
    assert {"duplicate": 2, "unfolded.payout.paid": 1}.items() <= result.counts.items()


def test_the_sequence_of_the_deliveries_does_not_matter():
    backwards = deduplicate(_accepted(reversed(sample.deliveries())), {}, Reading())
    events = [event for event in backwards.events if event.event_id != "evt_1001_2"]
    documents = documents_of([*events, *backwards.notes])
    others = sample.expected().orders.keys() - {"ord_1001"}
    for order_id in others:
        encoded = msgspec.json.decode(ORDER_DOCUMENTS.encode(documents[order_id]))
        assert sample.without_places(encoded) == sample.expected().orders[order_id]


def test_the_refusals_and_rejections_are_as_expected():
    deliveries = sample.deliveries()
    refused, rejected = [], []
    for delivery in deliveries:
        verdict = _judge(delivery)
        if isinstance(verdict, sample.RefusedDelivery):
            refused.append(verdict)
        elif isinstance(verdict, Rejection):
            refused.append(sample.RefusedDelivery(delivery.name, 400, verdict.reason))
            # Ingress keeps a rejected body only if the body is a JSON object.
            if delivery.body is not None:
                key, _, _ = rejected_record(delivery.raw, verdict, delivery.body.get("id"), None)
                rejected.append(sample.RejectedEvent(key.decode(), verdict.reason))
    rejected += [
        sample.RejectedEvent(item.event_id or "", item.rejection.reason)
        for item in deduplicate(_accepted(deliveries), {}, Reading()).rejected
    ]
    assert sorted(refused) == sorted(sample.expected().refused)
    assert sorted(rejected) == sorted(sample.expected().rejected)


def test_every_delivery_has_a_unique_name():
    names = [delivery.name for delivery in sample.deliveries()]
    assert len(set(names)) == len(names)
