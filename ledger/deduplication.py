"""Deduplication: each event counts once, whatever the log holds.

In: records of the log of record, and what was seen before under their keys. Out: the events to
fold, what was newly seen, the rejections, and counts.
Tells three cases apart: new; seen with the same content; seen with *other* content, which is
quarantined: the first in the log's order stands.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Protocol, assert_never

import msgspec

from ledger.envelope import Envelope, content_digest, decode_envelope
from ledger.events import Event, FieldNames, Unfolded, decode_event
from ledger.rejections import Reason, Rejection


class Record(Protocol):
    """A record of the log as a consumer gives it; ``timestamp`` is in milliseconds."""

    key: bytes | None
    value: bytes | None
    partition: int
    offset: int
    timestamp: int


class Seen(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What is remembered of an event id: its content, and where and when it was first seen."""

    digest: bytes
    offset: int
    timestamp_ms: int


class Rejected(msgspec.Struct, frozen=True):
    """A record that is not counted; ``event_id`` is ``None`` where none could be read."""

    record: Record
    event_id: str | None
    rejection: Rejection


class Deduplicated(msgspec.Struct):
    """What a run of records amounts to; ``counts`` is by outcome, for logs and metrics."""

    events: list[Event]
    seen: dict[bytes, Seen]
    rejected: list[Rejected]
    counts: Counter[str]


def deduplicate(
    records: Iterable[Record], known: Mapping[bytes, Seen], names: FieldNames
) -> Deduplicated:
    """Judge records in the log's order; ``known`` holds what was seen under their keys before."""
    result = Deduplicated(events=[], seen={}, rejected=[], counts=Counter())
    for record in records:
        _judge(record, known, names, result)
    return result


def _judge(
    record: Record, known: Mapping[bytes, Seen], names: FieldNames, result: Deduplicated
) -> None:
    envelope = decode_envelope(record.value or b"")
    if isinstance(envelope, Rejection):
        _reject(record, None, envelope, result)
        return
    key = envelope.id.encode()
    if key != record.key:
        # Deduplication looks in this partition only, so a record under another key can't be judged.
        detail = "the record's key is not the event's id"
        rejection = Rejection(reason=Reason.KEY_MISMATCH, detail=detail, field="id")
        _reject(record, envelope.id, rejection, result)
        return
    first = result.seen.get(key) or known.get(key)
    digest = content_digest(envelope)
    if first is None:
        result.seen[key] = Seen(digest, record.offset, record.timestamp)
        _take(record, envelope, names, result)
    elif first.offset == record.offset:
        # The worker stopped after this record was done and before its offset was committed.
        result.counts["replayed"] += 1
    elif first.digest == digest:
        result.counts["duplicate"] += 1
    else:
        detail = f"the id was first seen at offset {first.offset} with other content"
        rejection = Rejection(reason=Reason.EVENT_ID_REUSED, detail=detail, field="id")
        _reject(record, envelope.id, rejection, result)


def _take(record: Record, envelope: Envelope, names: FieldNames, result: Deduplicated) -> None:
    event = decode_event(envelope, record.partition, record.offset, names)
    match event:
        case Event():
            result.events.append(event)
            result.counts["folded"] += 1
        case Unfolded():
            result.counts[f"unfolded.{event.type}"] += 1
        case Rejection():
            _reject(record, envelope.id, event, result)
        case _:
            assert_never(event)


def _reject(
    record: Record, event_id: str | None, rejection: Rejection, result: Deduplicated
) -> None:
    result.rejected.append(Rejected(record, event_id, rejection))
    result.counts[f"rejected.{rejection.reason}"] += 1
