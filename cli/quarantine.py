"""The quarantine in Kafka: its items, the records behind them, and what each would be put back as.

In: a reader of one ledger, and settings of now. Out: items, records, a record to write or a
refusal. Never: a write; and never more than one body in memory.
"""

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

from aiokafka.structs import ConsumerRecord
from rich.console import Console

from cli.errors import NotReadError
from cli.ledger_reader import LedgerReader, sizes
from cli.printing import counting
from cli.settings import VerifySettings
from cli.verify import trust_of
from ingest.records import Delivery, webhook_record
from ledger.quarantine import (
    Item,
    Quarantine,
    Refusal,
    is_delivery,
    judge_delivery,
    judge_logged,
)
from ledger.wire import EVENTS
from processors.batches import OutRecord

Record: TypeAlias = ConsumerRecord[bytes, bytes]


class Put(NamedTuple):
    """What an item is put back as: a record of a topic."""

    topic: str
    record: OutRecord


class Records(NamedTuple):
    """The records behind an item: as it was kept, and as the log has it, where it has it."""

    kept: Record
    logged: Record | None

    @property
    def delivered(self) -> Record:
        """The one with the headers of the delivery."""
        return self.logged or self.kept

    @property
    def body(self) -> bytes:
        """The bytes that were rejected."""
        return self.kept.value or b""


async def read_quarantine(reader: LedgerReader, console: Console) -> Quarantine:
    """Read all of ``plexy.rejected``, and keep no body of it."""
    topic = reader.names.topics.rejected
    begins, ends = await reader.begins(topic), await reader.ends(topic)
    quarantine = Quarantine()
    with counting(console, {topic: sizes(begins, ends)}) as bar:
        async for _, records in reader.read(topic, begins, ends):
            quarantine.read(records)
            bar(topic, len(records))
    return quarantine


async def records_of(reader: LedgerReader, item: Item) -> Records:
    """Read the records behind an item."""
    topics = reader.names.topics
    kept = await _record(reader, topics.rejected, *item.kept)
    if kept is None:
        raise NotReadError(f"{topics.rejected} no longer has the record of {item.id}")
    if item.source is None or item.source.topic != topics.webhooks:
        return Records(kept, None)
    return Records(kept, await _record(reader, *item.source))


def judge(item: Item, records: Records, settings: VerifySettings) -> Put | Refusal:
    """Judge an item's bytes anew, with the code and settings of now."""
    names = settings.names
    if is_delivery(item):
        envelope = judge_delivery(records.kept, trust_of(settings))
        if isinstance(envelope, Refusal):
            return envelope
        new = webhook_record(names, _delivery(records.kept), records.body, envelope)
        return Put(new.topic, OutRecord(new.key, new.value, new.headers, new.timestamp_ms))
    if item.source is None or item.source.topic != names.webhooks:
        return Refusal(f"it does not come from {names.webhooks}, but from {item.origin}")
    event = judge_logged(item, records.body, records.logged, settings.field_names)
    if isinstance(event, Refusal):
        return event
    return Put(names.events, OutRecord(event.payment_id.encode(), EVENTS.encode(event)))


def _delivery(kept: Record) -> Delivery:
    headers: Mapping[str, bytes] = dict(kept.headers)
    arrived = headers.get("received-at-ms", b"")
    return Delivery(
        signature=headers.get("plexy-signature", b""),
        content_type=headers.get("content-type", b""),
        content_length=None,
        received_at_ms=int(arrived) if arrived.isdigit() else kept.timestamp,
    )


async def _record(reader: LedgerReader, topic: str, partition: int, offset: int) -> Record | None:
    begins, ends = await reader.begins(topic), await reader.ends(topic)
    if not begins.get(partition, 0) <= offset < ends.get(partition, 0):
        return None
    found: list[Record] = []
    async for _, records in reader.read(topic, {partition: offset}, {partition: offset + 1}):
        found += records
    return found[0] if found else None
