"""Deduplication: each event counts once, whatever the log holds.

In: records of the log of record, and what was seen before under their keys. Out: the events to
fold, what was newly seen, the rejections, and counts.
Tells three cases apart: new; seen with the same content; seen with *other* content, which is
quarantined: the first in the log's order stands.

An event id is forgotten once the log's time has gone on by more than the horizon: then its next
record is new. The log's time is the latest timestamp of a partition's records so far, so that it
never goes back: what is forgotten stays forgotten, and may be deleted from the table at any moment,
or never. Never: a verdict that depends on a clock, or on what has been deleted already.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final, assert_never

import msgspec

from ledger.envelope import Envelope, content_digest, decode_envelope
from ledger.events import Event, FieldNames, Unfolded, decode_event
from ledger.records import Record, SignedRecord
from ledger.rejections import Reason, Rejection
from ledger.trust import Trust
from ledger.unread import unread_or

DAY_MS: Final = 24 * 3600 * 1000
# Plexy may try for 75 hours; three months leave room for a log that is folded late, or by hand.
FORGET_AFTER_DAYS: Final = 90
FORGET_AFTER_MS: Final = FORGET_AFTER_DAYS * DAY_MS

# Of an event that comes more often, the later places are in the log alone: a bound for the value,
# and more than Plexy's retries within 75 hours.
MOST_REPEATS: Final = 64

# Where the table keeps a partition's progress: no event has this id.
PROGRESS_KEY: Final = b""


class AnotherLogError(RuntimeError):
    """What is remembered is of another log than the one that is read."""


class Seen(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What is remembered of an event id: its content, and where and when it was first seen.

    ``timestamp_ms`` is the log's time there. After it was forgotten, it is first seen once more.
    ``repeats`` are the first offsets at which it came again, whatever its content.
    """

    digest: bytes
    offset: int
    timestamp_ms: int
    repeats: tuple[int, ...] = ()

    @property
    def last_offset(self) -> int:
        """Where the id was seen last, as far as that is remembered."""
        return self.repeats[-1] if self.repeats else self.offset

    def repeated(self, offset: int) -> "Seen":
        """Return what is remembered after the id came once more."""
        if len(self.repeats) >= MOST_REPEATS:
            return self
        return msgspec.structs.replace(self, repeats=(*self.repeats, offset))


class Progress(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How far a partition was judged: the last record's ``offset``, and the log's time there.

    ``swept_to`` is the key up to which the table was searched for what is forgotten, the empty one
    between two searches; ``oldest_ms`` is the earliest log's time that the search left there.
    """

    swept_to: bytes = b""
    offset: int = -1
    timestamp_ms: int = 0
    oldest_ms: int = 0

    def forgets(self, seen: Seen, forget_after_ms: int) -> bool:
        """Return whether no record behind this point is compared with what was seen any more."""
        return self.timestamp_ms - seen.timestamp_ms > forget_after_ms

    def searches(self, forget_after_ms: int) -> bool:
        """Return whether the table is being searched, or may hold something that is forgotten."""
        return self.swept_to != b"" or self.timestamp_ms - self.oldest_ms > forget_after_ms


START: Final = Progress()


class Rejected(msgspec.Struct, frozen=True):
    """A record that is not counted; ``event_id`` is ``None`` where none could be read."""

    record: Record
    event_id: str | None
    rejection: Rejection


class Deduplicated(msgspec.Struct):
    """What a run of records amounts to; ``outcomes`` has a name for each record, in their order."""

    progress: Progress
    events: list[Event]
    seen: dict[bytes, Seen]
    rejected: list[Rejected]
    outcomes: list[str]

    @property
    def counts(self) -> Counter[str]:
        """How many records came to each outcome, for logs and metrics."""
        return Counter(self.outcomes)


def deduplicate(  # noqa: PLR0913, PLR0917 - all that a verdict depends on
    records: Iterable[SignedRecord],
    known: Mapping[bytes, Seen],
    names: FieldNames,
    progress: Progress = START,
    forget_after_ms: int = FORGET_AFTER_MS,
    trust: Trust | None = None,
) -> Deduplicated:
    """Judge a partition's records in their order; with ``trust``, only signed ones count.

    ``known`` holds what was seen under their keys before, forgotten or not, and ``progress`` how
    far the log was judged with it: what is up to there was published, and is passed over. ``seen``
    of the result is what is remembered now of each id that was new or came again.
    """
    result = Deduplicated(progress=progress, events=[], seen={}, rejected=[], outcomes=[])
    for record in records:
        if record.offset <= progress.offset:
            _pass_over(record, progress, result)
            continue
        now_ms = max(result.progress.timestamp_ms, record.timestamp)
        result.progress = Progress(progress.swept_to, record.offset, now_ms, progress.oldest_ms)
        envelope = _envelope(record, trust, result)
        if envelope is not None:
            _judge(record, envelope, known, names, forget_after_ms, result)
    return result


def oldest_left(remembered: Mapping[bytes, Seen], progress: Progress, forget_after_ms: int) -> int:
    """Return the earliest log's time of what the search, with these keys, has left in the table.

    What is remembered from the search's begin on is no earlier than that begin.
    """
    begun_ms = progress.oldest_ms if progress.swept_to else progress.timestamp_ms
    left = (each for each in remembered.values() if not progress.forgets(each, forget_after_ms))
    return min([begun_ms, *(each.timestamp_ms for each in left)])


def forgettable(
    remembered: Mapping[bytes, Seen], progress: Progress, forget_after_ms: int
) -> list[bytes]:
    """Return the keys of what may be deleted: no record behind ``progress`` needs it."""
    return [key for key, seen in remembered.items() if progress.forgets(seen, forget_after_ms)]


def _pass_over(record: Record, progress: Progress, result: Deduplicated) -> None:
    """Pass over what was judged before the worker stopped, its offset not committed yet."""
    if record.timestamp > progress.timestamp_ms:
        raise AnotherLogError(
            f"partition {record.partition} has, at offset {record.offset}, a record of later than "
            f"all that was judged up to offset {progress.offset}: the log was made anew. "
            "`plexy-ledger rebuild` folds the whole log of record anew"
        )
    result.outcomes.append("replayed")


def _envelope(record: SignedRecord, trust: Trust | None, result: Deduplicated) -> Envelope | None:
    """Return what a record says, if it may be an event: it has its own key, and is trusted.

    What is rejected here leaves no trace in what is seen, so that it can't take an event's place.
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
        # Deduplication looks in this partition only, so a record under another key can't be judged.
        detail = "the record's key is not the event's id"
        rejection = Rejection(reason=Reason.KEY_MISMATCH, detail=detail, field="id")
        _reject(record, envelope.id, rejection, result)
        return None
    return envelope


def _judge(  # noqa: PLR0913, PLR0917 - all that a verdict depends on
    record: SignedRecord,
    envelope: Envelope,
    known: Mapping[bytes, Seen],
    names: FieldNames,
    forget_after_ms: int,
    result: Deduplicated,
) -> None:
    key = envelope.id.encode()
    first = result.seen.get(key) or known.get(key)
    digest = content_digest(envelope)
    if first is not None and first.last_offset >= record.offset:
        # Only a part of what was seen reached the table; all of it was published before.
        result.outcomes.append("replayed")
        return
    if first is None or result.progress.forgets(first, forget_after_ms):
        result.seen[key] = Seen(digest, record.offset, result.progress.timestamp_ms)
        _take(record, envelope, names, result)
        return
    result.seen[key] = first.repeated(record.offset)
    if first.digest == digest:
        result.outcomes.append("duplicate")
    else:
        detail = f"the id was first seen at offset {first.offset} with other content"
        rejection = Rejection(reason=Reason.EVENT_ID_REUSED, detail=detail, field="id")
        _reject(record, envelope.id, rejection, result)


def _take(record: Record, envelope: Envelope, names: FieldNames, result: Deduplicated) -> None:
    event = decode_event(envelope, record.partition, record.offset, names)
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
