"""Notes: deliveries that name a payment or an order, but do not count.

A delivery with a good signature becomes a note if it is refused for its data, reuses an event id,
or has a type that is not folded. Notes travel through the hops (the steps of the fold) like facts
(the events that count), but carry no money. They change anomalies and lists of deliveries. They
never change an amount, a status, an entry, or the order that a payment belongs to.

A payment keeps a set of notes, so neither the notes' order of arrival nor a repetition matters. A
note with the outcome ``COUNTS`` gives the place (partition and offset) of the delivery that counts
for an event id. All other notes of that id are then marked as corrected, except the notes of
deliveries that reuse the id. A note about the delivery that counts is void, and is not shown: a
retry has made this delivery count.
"""

from collections.abc import Iterable
from typing import Annotated, Final, Literal

import msgspec

from ledger.envelope import Envelope
from ledger.published import Id, NotEmpty, Position, UnixSeconds, meaning
from ledger.records import Record
from ledger.rejections import Reason

MOST_NOTES: Final = 64
"""The largest number of notes that a payment keeps, and that a document shows.

The earliest notes are kept. A note usually takes some 300 bytes, and never more than 3 KiB.
"""

COUNTS: Final = "counts"
UNFOLDED: Final = "unfolded"

_REUSED: Final = str(Reason.EVENT_ID_REUSED)

NoteAnomaly = Literal["refused_event", "unfolded_event"]
NoteKey = tuple[int, str, int, int]
"""The sort key of a note: its time, its event's id, and its delivery's place."""

_MARKS_FIRST: Final = -1
"""The time of every note with the outcome ``COUNTS``: these notes sort before all other notes."""


class Note(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """A delivery that does not count."""

    event_id: Annotated[Id, meaning("the event's id")]
    type: Annotated[str, meaning("the event's type")]
    created: Annotated[
        UnixSeconds,
        meaning(
            "when the event was created; when the delivery arrived, if that time is unreadable or "
            "implausible"
        ),
    ]
    partition: Annotated[Position, meaning("the delivery's partition of `plexy.webhooks`")]
    offset: Annotated[Position, meaning("the delivery's offset in the partition")]
    outcome: Annotated[
        NotEmpty, meaning("why it does not count: `unfolded`, or the reason of its rejection")
    ]
    payment_id: Annotated[Id | None, meaning("the payment that it names, if readable")] = None
    order_reference: Annotated[Id | None, meaning("the order that it names, if readable")] = None
    informational: Annotated[
        bool, meaning("whether it is of a type that is known to change no money")
    ] = False
    corrected: Annotated[bool, meaning("whether a different delivery of the same event counts")] = (
        False
    )

    @property
    def kept_under(self) -> str:
        """The payment id under which the note is kept; the event's id if no payment is named."""
        return self.payment_id or self.event_id

    @property
    def is_refused(self) -> bool:
        """Whether the delivery was rejected."""
        return self.outcome not in {COUNTS, UNFOLDED}

    @property
    def anomaly(self) -> NoteAnomaly | None:
        """The anomaly of every order and payment that shows the note."""
        if self.corrected or self.informational:
            return None
        return "refused_event" if self.is_refused else "unfolded_event"


def counts(event_id: str, partition: int, offset: int, kept_under: str) -> Note:
    """Return the note which says that the delivery at this place counts; see ``kept_under``."""
    return Note(
        event_id=event_id,
        type="",
        created=_MARKS_FIRST,
        partition=partition,
        offset=offset,
        outcome=COUNTS,
        payment_id=None if kept_under == event_id else kept_under,
    )


def key_of(note: Note) -> NoteKey:
    """Return a note's sort key."""
    return note.created, note.event_id, note.partition, note.offset


def kept_notes(notes: Iterable[Note]) -> tuple[tuple[Note, ...], NoteKey | None]:
    """Return the notes that a payment keeps, sorted, and the key of the first left-out note."""
    by_key = {key_of(note): note for note in notes}
    keys = sorted(by_key)
    first_left = keys[MOST_NOTES] if len(keys) > MOST_NOTES else None
    return tuple(by_key[key] for key in keys[:MOST_NOTES]), first_left


def with_note(
    kept: tuple[Note, ...], first_left: NoteKey | None, note: Note
) -> tuple[tuple[Note, ...], NoteKey | None]:
    """Add a note; return the notes that are now kept, and the key of the first note left out."""
    key = key_of(note)
    if (first_left is not None and key >= first_left) or key in map(key_of, kept):
        return kept, first_left
    notes, now_left = kept_notes((*kept, note))
    return notes, now_left or first_left


def shown(notes: Iterable[Note]) -> tuple[Note, ...]:
    """Return the notes that are not void; mark each note whose event was corrected."""
    notes = tuple(notes)
    places = {_place(note) for note in notes if note.outcome == COUNTS}
    corrected = {event_id for event_id, _, _ in places}
    return tuple(
        msgspec.structs.replace(note, corrected=True)
        if note.event_id in corrected and note.outcome != _REUSED
        else note
        for note in notes
        if note.outcome != COUNTS and _place(note) not in places
    )


def anomalies_of(notes: Iterable[Note]) -> set[str]:
    """Return the anomalies of shown notes."""
    return {note.anomaly for note in notes if note.anomaly is not None}


def _place(note: Note) -> tuple[str, int, int]:
    return note.event_id, note.partition, note.offset


def note_of(  # noqa: PLR0913 - all that a note says
    envelope: Envelope,
    record: Record,
    outcome: str,
    *,
    payment_id: str | None,
    order_reference: str | None,
    created: int,
    informational: bool = False,
) -> Note | None:
    """Return the note about a delivery; ``None`` if it names neither a payment nor an order."""
    if payment_id is None and order_reference is None:
        return None
    return Note(
        event_id=envelope.id,
        type=envelope.type,
        created=created,
        partition=record.partition,
        offset=record.offset,
        outcome=outcome,
        payment_id=payment_id,
        order_reference=order_reference,
        informational=informational,
    )
