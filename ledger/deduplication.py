"""Deduplication: each event counts once, however often it is in the log.

Input: records of the log of record, and the rows of the event ids seen before. Output: the events
to fold, the new rows, the rejections, and counts. There are three cases: a new event, an event seen
before with the same content, and an event seen before with *other* content. An event of the third
case is quarantined, and the first event in the log's order counts.

An event id is forgotten once its first record is older, by the log's time, than the horizon; the
id's next record then counts as new. The log's time is the latest timestamp of a partition's records
so far, so it never goes back. A forgotten id therefore stays forgotten, and its row may be deleted
at any time, or never. Invariant: no verdict depends on a clock, or on which rows have been deleted.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final, assert_never

import msgspec

from ledger.envelope import Envelope, content_digest, decode_envelope
from ledger.events import Event, Reading, Unfolded, decode_event
from ledger.records import Record, SignedRecord
from ledger.rejections import Reason, Rejection
from ledger.trust import Trust
from ledger.unread import unread_or

DAY_MS: Final = 24 * 3600 * 1000
# Plexy retries for up to 75 hours; three months leave room for a log folded late or by hand.
FORGET_AFTER_DAYS: Final = 90
FORGET_AFTER_MS: Final = FORGET_AFTER_DAYS * DAY_MS

# The limit bounds the size of a row, and is higher than the number of Plexy's retries. Any further
# repeats of an event can be found only in the log.
MOST_REPEATS: Final = 64

# The key under which the table stores a partition's progress; no event has this id.
PROGRESS_KEY: Final = b""


class AnotherLogError(RuntimeError):
    """The table was folded from a log other than the one being read."""


class Seen(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The row of an event id: a digest of its content, and the place and time of its first record.

    ``timestamp_ms`` is the log's time at ``offset``. ``repeats`` are the offsets of the id's first
    repeats, with any content. Once an id is forgotten, its next record counts as its first.
    """

    digest: bytes
    offset: int
    timestamp_ms: int
    repeats: tuple[int, ...] = ()

    @property
    def last_offset(self) -> int:
        """The last offset in the row."""
        return self.repeats[-1] if self.repeats else self.offset

    def repeated(self, offset: int) -> "Seen":
        """Return the row after one more repeat of the id."""
        if len(self.repeats) >= MOST_REPEATS:
            return self
        return msgspec.structs.replace(self, repeats=(*self.repeats, offset))


class Progress(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The last judged record of a partition: its ``offset``, and the log's time at that offset.

    ``rules`` is the digest of the rule set by which the partition was judged.

    The table is searched for forgotten ids. ``swept_to`` is the key that the current search has
    reached, empty between two searches. ``oldest_ms`` is the earliest ``Seen.timestamp_ms`` that
    remained in the table.
    """

    swept_to: bytes = b""
    offset: int = -1
    timestamp_ms: int = 0
    oldest_ms: int = 0
    rules: str = ""

    def forgets(self, seen: Seen, forget_after_ms: int) -> bool:
        """Return whether an id is forgotten, so that no later record is compared with it."""
        return self.timestamp_ms - seen.timestamp_ms > forget_after_ms

    def searches(self, forget_after_ms: int) -> bool:
        """Return whether the table is being searched, or may contain a forgotten id."""
        return self.swept_to != b"" or self.timestamp_ms - self.oldest_ms > forget_after_ms


START: Final = Progress()


class Rejected(msgspec.Struct, frozen=True):
    """A record that does not count; ``event_id`` is ``None`` if the id is unreadable."""

    record: Record
    event_id: str | None
    rejection: Rejection


class Deduplicated(msgspec.Struct):
    """The result for some records; ``outcomes`` has an outcome for each, in the same order."""

    progress: Progress
    events: list[Event]
    seen: dict[bytes, Seen]
    rejected: list[Rejected]
    outcomes: list[str]

    @property
    def counts(self) -> Counter[str]:
        """The number of records with each outcome, for logs and metrics."""
        return Counter(self.outcomes)


def deduplicate(  # noqa: PLR0913, PLR0917 - all that a verdict depends on
    records: Iterable[SignedRecord],
    known: Mapping[bytes, Seen],
    reading: Reading,
    progress: Progress = START,
    forget_after_ms: int = FORGET_AFTER_MS,
    trust: Trust | None = None,
) -> Deduplicated:
    """Judge a partition's records in their order; with ``trust``, only signed records count.

    ``known`` holds the existing rows of the records' keys, forgotten or not. Records up to
    ``progress`` were judged and published before, and are skipped. ``seen`` in the result holds the
    new row of each id that was new or repeated.
    """
    result = Deduplicated(progress=progress, events=[], seen={}, rejected=[], outcomes=[])
    rules = reading.rules.digest
    for record in records:
        if record.offset <= progress.offset:
            _pass_over(record, progress, result)
            continue
        now_ms = max(result.progress.timestamp_ms, record.timestamp)
        result.progress = Progress(
            progress.swept_to, record.offset, now_ms, progress.oldest_ms, rules
        )
        envelope = _envelope(record, trust, result)
        if envelope is not None:
            _judge(record, envelope, known, reading, forget_after_ms, result)
    return result


def oldest_left(remembered: Mapping[bytes, Seen], progress: Progress, forget_after_ms: int) -> int:
    """Return the earliest ``timestamp_ms`` that remains in the table once these keys are searched.

    An id that was first seen during the search is no older than the beginning of the search.
    """
    begun_ms = progress.oldest_ms if progress.swept_to else progress.timestamp_ms
    left = (each for each in remembered.values() if not progress.forgets(each, forget_after_ms))
    return min([begun_ms, *(each.timestamp_ms for each in left)])


def forgettable(
    remembered: Mapping[bytes, Seen], progress: Progress, forget_after_ms: int
) -> list[bytes]:
    """Return the keys that may be deleted, because no record after ``progress`` needs them."""
    return [key for key, seen in remembered.items() if progress.forgets(seen, forget_after_ms)]


def _pass_over(record: Record, progress: Progress, result: Deduplicated) -> None:
    """Skip a record that was judged before the worker stopped, but not committed."""
    if record.timestamp > progress.timestamp_ms:
        raise AnotherLogError(
            f"partition {record.partition} has, at offset {record.offset}, a record that is later "
            f"than every record judged up to offset {progress.offset}: the log is another one. "
            "`plexy-ledger rebuild` folds the whole log of record from scratch"
        )
    result.outcomes.append("replayed")


def _envelope(record: SignedRecord, trust: Trust | None, result: Deduplicated) -> Envelope | None:
    """Return the envelope of a record that may be an event: readable, trusted, under its own key.

    A record that is rejected here is not remembered, so it can't take an event's place.
    """
    envelope = decode_envelope(record.value or b"")
    if isinstance(envelope, Rejection):
        _reject(record, None, unread_or(envelope, record.value), result)
        return None
    fault = trust.fault(record) if trust else None
    if fault is not None:
        detail = f"the signature of the record is not good: {fault}"
        rejection = Rejection(reason=Reason.SIGNATURE_REFUSED, detail=detail)
        _reject(record, envelope.id, rejection, result)
        return None
    if envelope.id.encode() != record.key:
        # An event's duplicates are only found in the partition of its own key.
        detail = "the record's key is not the event's id"
        rejection = Rejection(reason=Reason.KEY_MISMATCH, detail=detail, field="id")
        _reject(record, envelope.id, rejection, result)
        return None
    return envelope


def _judge(  # noqa: PLR0913, PLR0917 - all that a verdict depends on
    record: SignedRecord,
    envelope: Envelope,
    known: Mapping[bytes, Seen],
    reading: Reading,
    forget_after_ms: int,
    result: Deduplicated,
) -> None:
    key = envelope.id.encode()
    first = result.seen.get(key) or known.get(key)
    digest = content_digest(envelope)
    if first is not None and first.last_offset >= record.offset:
        # After a crash the table may have only some rows of a chunk whose events were published.
        result.outcomes.append("replayed")
        return
    if first is None or result.progress.forgets(first, forget_after_ms):
        result.seen[key] = Seen(digest, record.offset, result.progress.timestamp_ms)
        _take(record, envelope, reading, result)
        return
    result.seen[key] = first.repeated(record.offset)
    if first.digest == digest:
        result.outcomes.append("duplicate")
    else:
        detail = f"the id was first seen at offset {first.offset} with other content"
        rejection = Rejection(reason=Reason.EVENT_ID_REUSED, detail=detail, field="id")
        _reject(record, envelope.id, rejection, result)


def _take(record: Record, envelope: Envelope, reading: Reading, result: Deduplicated) -> None:
    event = decode_event(envelope, record.partition, record.offset, record.timestamp, reading)
    match event:
        case Event():
            result.events.append(event)
            result.outcomes.append("folded")
        case Unfolded():
            result.outcomes.append(f"unfolded.{event.type}")
        case Rejection():
            _reject(record, envelope.id, event, result)
        case _:
            assert_never(event)


def _reject(
    record: Record, event_id: str | None, rejection: Rejection, result: Deduplicated
) -> None:
    result.rejected.append(Rejected(record, event_id, rejection))
    result.outcomes.append(f"rejected.{rejection.reason}")
