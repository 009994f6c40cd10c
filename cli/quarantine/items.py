"""Reads the quarantine from Kafka, and judges its items with the current code and settings.

A verdict is the record that a retry would write, or a refusal. This module does not write to Kafka.
For each partition, memory holds at most the bodies of one fetch.
"""

from collections.abc import Mapping
from contextlib import aclosing
from typing import NamedTuple, TypeAlias

from aiokafka.structs import ConsumerRecord
from rich.console import Console

from cli.errors import NotReadError
from cli.printing import counting
from cli.settings import JudgeSettings
from cli.topics.ledger_reader import LedgerReader, Offsets, sizes
from cli.verification.verify import trust_of
from ingest.records import DeliveryHead, webhook_record
from ledger.dialects import dialect_headers_of
from ledger.quarantine import (
    Item,
    Quarantine,
    Refusal,
    is_delivery,
    judge_delivery,
    judge_logged,
)
from runtime.kafka.batches import OutRecord

Record: TypeAlias = ConsumerRecord[bytes, bytes]


class Put(NamedTuple):
    """The record that puts an item back, and its topic."""

    topic: str
    record: OutRecord


class Records(NamedTuple):
    """The record of an item's rejection, and the rejected record itself if it still exists.

    ``body`` contains the rejected bytes. ``body`` is ``None`` if the rejection has only the size
    and the checksum of the bytes, and the source no longer has the bytes.
    """

    kept: Record
    source: Record | None
    body: bytes | None

    @property
    def delivered(self) -> Record:
        """The record that has the headers of the delivery."""
        return self.source or self.kept


async def read_quarantine(reader: LedgerReader, console: Console) -> Quarantine:
    """Read all of ``plexy.rejected``; keep no bodies in memory."""
    names = reader.names.topics
    topic = names.rejected
    begins, ends = await reader.begins(topic), await reader.ends(topic)
    quarantine = Quarantine(names)
    with counting(console, {topic: sizes(begins, ends)}) as bar:
        async for _, records in reader.read(topic, begins, ends):
            quarantine.read(records)
            bar(topic, len(records))
    return quarantine


class ItemReader:
    """Reads the records of items.

    Each topic is read up to the end offsets that the topic has at the first reading. So use this
    class only after the quarantine has been read. For each partition, the records of the last fetch
    are kept. So if the items are read in the sequence of the log, few fetches and little memory are
    needed.
    """

    def __init__(self, reader: LedgerReader) -> None:
        self._reader = reader
        self._ends: dict[str, Offsets] = {}
        self._fetched: dict[tuple[str, int], dict[int, Record]] = {}

    async def records(self, item: Item) -> Records:
        """Read the records of an item."""
        topics = self._reader.names.topics
        kept = await self._record(topics.rejected, *item.kept)
        if kept is None:
            raise NotReadError(f"{topics.rejected} no longer has the record of {item.id}")
        source = None
        if item.source is not None and item.source.topic in topics.hops:
            source = await self._record(*item.source)
        if item.unkept is None:
            return Records(kept, source, kept.value or b"")
        body = source.value if source else None
        is_there = body is not None and item.unkept.describes(body)
        return Records(kept, source, body if is_there else None)

    async def _record(self, topic: str, partition: int, offset: int) -> Record | None:
        place = (topic, partition)
        if offset not in self._fetched.get(place, {}):
            self._fetched[place] = await self._fetch(topic, partition, offset)
        return self._fetched[place].get(offset)

    async def _fetch(self, topic: str, partition: int, offset: int) -> dict[int, Record]:
        if topic not in self._ends:
            self._ends[topic] = await self._reader.ends(topic)
        # The place comes from outside, so there may be no such partition.
        end = self._ends[topic].get(partition)
        rest = {} if end is None else {partition: end}
        async with aclosing(self._reader.read(topic, {partition: offset}, rest)) as fetches:
            async for _, records in fetches:
                return {record.offset: record for record in records}
        return {}


def judge(item: Item, records: Records, settings: JudgeSettings) -> Put | Refusal:
    """Judge an item's bytes again, with the current code and settings."""
    names, kept = settings.names, records.kept.value or b""
    if is_delivery(item):
        envelope = judge_delivery(records.kept, trust_of(settings))
        if isinstance(envelope, Refusal):
            return envelope
        new = webhook_record(names, _delivery(records.kept), kept, envelope)
        return Put(new.topic, OutRecord(new.key, new.value, new.headers, new.timestamp_ms))
    if item.source is None or item.source.topic != names.webhooks:
        return Refusal(f"it comes from {item.origin}, expected {names.webhooks}")
    logged = records.source
    event = judge_logged(item, kept, logged, settings.reading, trust_of(settings))
    if isinstance(event, Refusal) or logged is None:
        return event if isinstance(event, Refusal) else Refusal("the log no longer has it")
    headers = list(logged.headers)
    return Put(
        names.webhooks, OutRecord(logged.key or b"", logged.value, headers, logged.timestamp)
    )


def _delivery(kept: Record) -> DeliveryHead:
    headers: Mapping[str, bytes] = dict(kept.headers)
    arrived = headers.get("received-at-ms", b"")
    return DeliveryHead(
        signature=headers.get("plexy-signature", b""),
        dialect=dialect_headers_of(kept.headers),
        content_type=headers.get("content-type", b""),
        content_length=None,
        received_at_ms=int(arrived) if arrived.isdigit() else kept.timestamp,
    )
