"""Builds examples of published records by applying the rules to the demo's sample.

The keys, values and headers are those that a worker writes for a log that consists of the sample's
deliveries. No example is written by hand.
"""

from collections import Counter, defaultdict
from typing import Final, NamedTuple

from cli.demo import sample
from ledger.deduplication import deduplicate
from ledger.envelope import Envelope, decode_envelope
from ledger.events import Event, Reading
from ledger.journal import Entry
from ledger.notes import Note
from ledger.orders import OrderDocument, describe, fold_orders
from ledger.payments import Payment, Snapshot, fold_payments
from ledger.rejected import RejectedRecord, put_back_record, rejected_record
from ledger.rejections import Reason
from ledger.topics import TopicNames
from runtime.kafka.partitions import partition_for

# The example pretends that a retry writes the rejected delivery at this offset.
_LOG_END: Final = 9
_PARTITIONS: Final = 4
# A delivery that was rejected for this reason succeeds on retry after the currency has been added
# to the ledger's list of currencies.
_RETRIABLE: Final = Reason.CURRENCY_UNKNOWN.encode()
_TIME_MS: Final = 1_767_744_000_000


class _Logged(NamedTuple):
    """A record of the log of record."""

    key: bytes
    value: bytes
    partition: int
    offset: int
    timestamp: int = _TIME_MS
    headers: tuple[tuple[str, bytes], ...] = ()


class Examples(NamedTuple):
    """All orders' documents, all entries, a rejection, and the record that marks it as put back."""

    orders: list[OrderDocument]
    entries: list[Entry]
    rejection: RejectedRecord
    put_back: RejectedRecord


def examples() -> Examples:
    """Fold the sample's deliveries."""
    names = TopicNames()
    events: list[Event | Note] = []
    rejected: list[RejectedRecord] = []
    for partition, records in sorted(_log().items()):
        result = deduplicate(records, {}, Reading())
        events += (*result.events, *result.notes)
        for each in result.rejected:
            place = (names.webhooks, partition, each.record.offset)
            body = each.record.value or b""
            rejected.append(rejected_record(body, each.rejection, each.event_id, place))
    payments: dict[str, Payment] = {}
    snapshots: list[Snapshot] = []
    entries: list[Entry] = []
    for event in events:
        folded = fold_payments([event], payments)
        payments |= folded.payments
        snapshots += folded.snapshots
        entries += folded.entries
    documents = map(describe, fold_orders(snapshots, {}).values())
    rejection = next(each for each in rejected if dict(each[2])["reason"] == _RETRIABLE)
    key, body, headers = rejection
    went_to = f"{names.webhooks}/{partition_for(key, _PARTITIONS)}/{_LOG_END}"
    return Examples(
        orders=[document for document in documents if document is not None],
        entries=entries,
        rejection=rejection,
        put_back=put_back_record(key, body, headers, went_to, _TIME_MS),
    )


def _log() -> dict[int, list[_Logged]]:
    """Return the log of record, by partition, as ingress would write it."""
    refused = {refusal.delivery for refusal in sample.expected().refused}
    log: dict[int, list[_Logged]] = defaultdict(list)
    ends: Counter[int] = Counter()
    for delivery in sample.deliveries():
        envelope = decode_envelope(delivery.raw)
        if delivery.name not in refused and isinstance(envelope, Envelope):
            key = envelope.id.encode()
            partition = partition_for(key, _PARTITIONS)
            log[partition].append(_Logged(key, delivery.raw, partition, ends[partition]))
            ends[partition] += 1
    return log
