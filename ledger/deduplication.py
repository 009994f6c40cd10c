"""Deduplication: each event counts once, however often it is in the log.

Input: records of the log of record, and the rows of the event ids that were seen before. Output:
the events to fold, the notes about deliveries that do not count, the new rows, the rejections, and
counts. Of all deliveries of an event id, only one counts: the first delivery, in the log's order,
that can be folded. A delivery with the same content as the counted delivery is a duplicate. A later
delivery with different content is rejected, either for its data or because it reuses the id. A
delivery that was rejected or left unfolded does not block a later, corrected delivery of its id.

An event id is forgotten once its record is older than ``forget_after_ms``, measured by the log's
time. Here, *its record* is the record that counts or, while no record of the id counts, the id's
first record. The next record of a forgotten id counts as new. The log's time is the latest
timestamp among the partition's records so far, so it never goes back. So a forgotten id stays
forgotten until its next record, and its row may be deleted at any time, or never. Invariant: a
verdict depends neither on a clock, nor on which rows have been deleted.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from ledger.dialects import read_envelope
from ledger.envelope import Envelope, content_digest
from ledger.events import Event, Reading, Unfolded, decode_event, named_by
from ledger.notes import UNFOLDED, Note, counts, note_of
from ledger.records import Record, SignedRecord
from ledger.rejections import Reason, Rejection
from ledger.trust import Trust
from ledger.unread import unread_or

DAY_MS: Final = 24 * 3600 * 1000
# Plexy retries a delivery for up to 75 hours. Three months leave room for logs that are folded late
# or by hand.
FORGET_AFTER_DAYS: Final = 90
FORGET_AFTER_MS: Final = FORGET_AFTER_DAYS * DAY_MS

# The limit bounds the size of a row, and is higher than the number of Plexy's retries. The row does
# not show any further repeats of the event; the log does.
MOST_REPEATS: Final = 64
# A sender corrects an event only once or twice, so this limit is high enough.
MOST_UNCOUNTED: Final = 16

# The key under which the table stores a partition's progress; no event has this id.
PROGRESS_KEY: Final = b""


class AnotherLogError(RuntimeError):
    """The table was folded from a different log than the log that is being read."""


class Uncounted(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An uncounted delivery: its content's digest, its offset, and the log's time at this offset.

    ``noted_under`` is the id of the payment that keeps the delivery's note (``ledger.notes``), or
    empty if the delivery has no note. ``is_unfolded`` is true if the ledger does not fold the
    delivery's type, and false if the delivery was rejected for its data.
    """

    digest: bytes
    offset: int
    timestamp_ms: int
    noted_under: str
    is_unfolded: bool = False


class Seen(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The row of an event id: the digest, the place and the time of the record that counts.

    While no record counts, ``digest`` is empty, the place and the time belong to the first
    record, and ``uncounted`` has one delivery for each distinct content, up to a limit. Once a
    record counts, ``uncounted`` keeps only the earlier deliveries that were left unfolded.
    ``timestamp_ms`` is the log's time at ``offset``. ``repeats`` are the offsets of the id's other
    records, whatever their content, up to a limit. Once an id is forgotten, its next record counts
    as its first record.
    """

    digest: bytes
    offset: int
    timestamp_ms: int
    repeats: tuple[int, ...] = ()
    uncounted: tuple[Uncounted, ...] = ()

    @property
    def last_offset(self) -> int:
        """The last offset in the row."""
        return max(self.offset, self.repeats[-1]) if self.repeats else self.offset

    def repeated(self, offset: int) -> "Seen":
        """Return the row after one more repeat of the id."""
        if len(self.repeats) >= MOST_REPEATS:
            return self
        return msgspec.structs.replace(self, repeats=(*self.repeats, offset))

    def also(self, uncounted: Uncounted) -> "Seen":
        """Return the row with one more delivery that does not count."""
        if len(self.uncounted) >= MOST_UNCOUNTED:
            return self
        return msgspec.structs.replace(self, uncounted=(*self.uncounted, uncounted))

    def first_of(self, digest: bytes) -> Uncounted | None:
        """Return the first uncounted delivery whose content has this digest, if there is one."""
        return next((each for each in self.uncounted if each.digest == digest), None)


class Progress(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The last judged record of a partition: its ``offset``, and the log's time at that offset.

    ``rules`` is the digest of the rule set by which the partition was judged.

    From time to time, the table is searched for forgotten ids. ``swept_to`` is the key that the
    current search has reached; it is empty between two searches. ``oldest_ms`` is the earliest
    ``Seen.timestamp_ms`` that the current search has left in the table. Between two searches,
    ``oldest_ms`` keeps the value of the last search.
    """

    swept_to: bytes = b""
    offset: int = -1
    timestamp_ms: int = 0
    oldest_ms: int = 0
    rules: str = ""

    def searches(self, forget_after_ms: int) -> bool:
        """Return whether the table is being searched, or may contain a forgotten id."""
        return self.swept_to != b"" or self.timestamp_ms - self.oldest_ms > forget_after_ms


START: Final = Progress()


def is_forgotten(seen: Seen, now_ms: int, forget_after_ms: int) -> bool:
    """Return whether an id is forgotten, so that no later record is compared with it.

    ``now_ms`` is the log's time.
    """
    return now_ms - seen.timestamp_ms > forget_after_ms


class Rejected(msgspec.Struct, frozen=True):
    """A record that does not count; ``event_id`` is ``None`` if the id is unreadable."""

    record: Record
    event_id: str | None
    rejection: Rejection


class Corrected(msgspec.Struct, frozen=True):
    """A rejected delivery, and the offset at which a different delivery of its event id counts.

    ``at_ms`` is the time of the record that was judged when the correction was found, in Unix
    milliseconds.
    """

    event_id: str
    partition: int
    rejected_at: int
    counts_at: int
    at_ms: int


class Deduplicated(msgspec.Struct):
    """The result for some records; ``outcomes`` has one outcome for each record, in their order.

    ``now_ms`` is the log's time at the record that was judged last. If earlier deliveries of an id
    did not count, and a delivery counts now, ``uncorrected`` has the id's previous row.
    """

    progress: Progress
    now_ms: int
    events: list[Event] = []
    notes: list[Note] = []
    seen: dict[bytes, Seen] = {}
    uncorrected: dict[bytes, Seen] = {}
    rejected: list[Rejected] = []
    corrected: list[Corrected] = []
    outcomes: list[str] = []

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
    """Judge a partition's records in offset order; ``trust``, if given, checks their signatures.

    ``known`` holds the rows that the table has under the records' keys; some of these ids may be
    forgotten. Records up to ``progress`` are skipped, because their results are already published.
    In the result, ``seen`` holds the new row of each id that was new or repeated.
    """
    result = Deduplicated(progress, progress.timestamp_ms)
    last = progress.offset
    for record in records:
        if record.offset <= progress.offset:
            _pass_over(record, progress, result)
            continue
        last = record.offset
        result.now_ms = max(result.now_ms, record.timestamp)
        envelope = _envelope(record, trust, result)
        if envelope is not None:
            _judge(record, envelope, known, reading, forget_after_ms, result)
    if last > progress.offset:
        result.progress = msgspec.structs.replace(
            progress, offset=last, timestamp_ms=result.now_ms, rules=reading.rules.digest
        )
    return result


def oldest_left(remembered: Mapping[bytes, Seen], progress: Progress, forget_after_ms: int) -> int:
    """Return the earliest ``timestamp_ms`` that remains in the table once these rows are searched.

    The result is never later than the beginning of the search, because new ids may have been seen
    since then.
    """
    begun_ms = progress.oldest_ms if progress.swept_to else progress.timestamp_ms
    now_ms = progress.timestamp_ms
    left = (each for each in remembered.values() if not is_forgotten(each, now_ms, forget_after_ms))
    return min([begun_ms, *(each.timestamp_ms for each in left)])


def forgettable(
    remembered: Mapping[bytes, Seen], progress: Progress, forget_after_ms: int
) -> list[bytes]:
    """Return the keys that may be deleted: no record after ``progress`` needs their rows."""
    now_ms = progress.timestamp_ms
    return [key for key, seen in remembered.items() if is_forgotten(seen, now_ms, forget_after_ms)]


def _pass_over(record: Record, progress: Progress, result: Deduplicated) -> None:
    """Skip a record that a worker had judged, but not committed, before it stopped."""
    if record.timestamp > progress.timestamp_ms:
        raise AnotherLogError(
            f"the record at partition {record.partition}, offset {record.offset} has a later time "
            f"than all records that were judged up to offset {progress.offset}, so the log was "
            "replaced. "
            "`plexy-ledger rebuild` folds the whole log of record from scratch"
        )
    result.outcomes.append("replayed")


def _envelope(record: SignedRecord, trust: Trust | None, result: Deduplicated) -> Envelope | None:
    """Return a record's envelope, or ``None`` after rejecting a record that can't be an event.

    Such a record is unreadable, untrusted, or stored under another key than its event's id. The
    table does not remember the record's id, so the record can't take the place of an event.
    """
    envelope = read_envelope(record)
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
        # Duplicates of an event are found only among records that have the event's id as their key.
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
    held = result.seen.get(key) or known.get(key)
    if held is not None and held.last_offset >= record.offset:
        # After a crash, a chunk is judged again. The table may already have the rows of some of its
        # records. The events of these records were published before the crash.
        result.outcomes.append("replayed")
        return
    digest = content_digest(envelope)
    if held is None or is_forgotten(held, result.now_ms, forget_after_ms):
        verdict = decode_event(envelope, record.partition, record.offset, record.timestamp, reading)
        if isinstance(verdict, Event):
            # Nearly every record is the first of its id, and counts.
            result.seen[key] = Seen(digest, record.offset, result.now_ms)
            result.events.append(verdict)
            result.outcomes.append("folded")
            return
        result.seen[key] = _Judged(record, envelope, digest, reading, result).first(verdict)
        return
    judged = _Judged(record, envelope, digest, reading, result)
    if held.digest == digest:
        result.outcomes.append("duplicate")
        result.seen[key] = held.repeated(record.offset)
    elif held.digest:
        result.seen[key] = judged.unlike_one_that_counts(held)
    else:
        result.seen[key] = judged.while_none_counts(held)


class _Judged:
    """A record, the digest of its content, and the result to which the verdict is added."""

    __slots__ = ("_digest", "_envelope", "_reading", "_record", "_result")

    def __init__(
        self,
        record: SignedRecord,
        envelope: Envelope,
        digest: bytes,
        reading: Reading,
        result: Deduplicated,
    ) -> None:
        self._record = record
        self._envelope = envelope
        self._digest = digest
        self._reading = reading
        self._result = result

    def first(self, verdict: Unfolded | Rejection) -> Seen:
        """Take the first record of an id, which does not count; return the id's row."""
        uncounted = (self._set_aside(verdict),)
        return Seen(b"", self._record.offset, self._result.now_ms, (), uncounted)

    def unlike_one_that_counts(self, held: Seen) -> Seen:
        """Judge a record whose content differs from the record that counts; return the new row."""
        record = self._record
        verdict = self._read(record.offset)
        if isinstance(verdict, Rejection):
            self._correct(self._set_aside(verdict), held.offset)
        elif held.first_of(self._digest) is not None:
            self._result.outcomes.append("duplicate")
        else:
            detail = f"the id was first seen at offset {held.offset} with other content"
            reused = Rejection(reason=Reason.EVENT_ID_REUSED, detail=detail, field="id")
            self._set_aside(reused)
        return held.repeated(record.offset)

    def while_none_counts(self, held: Seen) -> Seen:
        """Judge a record whose id has no record that counts yet; return the new row.

        Content that did not count before can count now only if the rules have changed in the
        meantime. It then counts at the offset at which it first arrived, as in a fold from scratch.
        """
        record, result = self._record, self._result
        before = held.first_of(self._digest)
        offset = before.offset if before else record.offset
        verdict = self._read(offset)
        if not isinstance(verdict, Event):
            if before is None:
                return held.also(self._set_aside(verdict)).repeated(record.offset)
            result.outcomes.append("duplicate")
            return held.repeated(record.offset)
        result.events.append(verdict)
        result.outcomes.append("folded")
        result.uncorrected[record.key or b""] = held
        for each in held.uncounted:
            self._correct(each, offset)
        others = sorted({held.offset, *held.repeats, record.offset} - {offset})
        at_ms = before.timestamp_ms if before else result.now_ms
        earlier = (each for each in held.uncounted if each.is_unfolded and each.offset < offset)
        return Seen(self._digest, offset, at_ms, tuple(others[:MOST_REPEATS]), tuple(earlier))

    def _read(self, offset: int) -> Event | Unfolded | Rejection:
        record = self._record
        return decode_event(
            self._envelope, record.partition, offset, record.timestamp, self._reading
        )

    def _set_aside(self, verdict: Unfolded | Rejection) -> Uncounted:
        """Reject the record, or leave it unfolded; return the delivery as the id's row keeps it."""
        is_unfolded = isinstance(verdict, Unfolded)
        if isinstance(verdict, Unfolded):
            self._result.outcomes.append(f"unfolded.{verdict.type}")
            note = self._note(UNFOLDED, informational=verdict.known)
        else:
            _reject(self._record, self._envelope.id, verdict, self._result)
            note = self._note(str(verdict.reason))
        noted_under = note.kept_under if note else ""
        offset, now_ms = self._record.offset, self._result.now_ms
        return Uncounted(self._digest, offset, now_ms, noted_under, is_unfolded)

    def _note(self, outcome: str, *, informational: bool = False) -> Note | None:
        named = named_by(self._envelope, self._record.timestamp, self._reading)
        note = note_of(
            self._envelope, self._record, outcome, **named._asdict(), informational=informational
        )
        if note is not None:
            self._result.notes.append(note)
        return note

    def _correct(self, uncounted: Uncounted, offset: int) -> None:
        """Report that the record at ``offset`` counts instead of an uncounted delivery."""
        record, event_id = self._record, self._envelope.id
        if uncounted.noted_under:
            mark = counts(event_id, record.partition, offset, uncounted.noted_under)
            self._result.notes.append(mark)
        if not uncounted.is_unfolded:
            place = (record.partition, uncounted.offset, offset)
            self._result.corrected.append(Corrected(event_id, *place, record.timestamp))


def _reject(
    record: Record, event_id: str | None, rejection: Rejection, result: Deduplicated
) -> None:
    result.rejected.append(Rejected(record, event_id, rejection))
    result.outcomes.append(f"rejected.{rejection.reason}")
