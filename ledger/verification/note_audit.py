"""Audits all notes of a payment, or only the notes that a given order shows.

Input: the truth (``ledger.verification.truth``), the notes that are shown, and the notes that
should be shown according to the log. Output: a text that says what is wrong; the text is empty if
the log explains the notes.
"""

from collections.abc import Iterable

from msgspec.structs import replace

from ledger.notes import Note, key_of, shown
from ledger.verification.fields import unlike
from ledger.verification.truth import Truth


def note_fault(
    truth: Truth,
    payment_id: str,
    held: Iterable[Note],
    expected: Iterable[Note],
    order_id: str | None = None,
) -> str:
    """Say how shown notes contradict the log; ``order_id`` is the order that shows them, if any."""
    is_at_rest = truth.is_at_rest(payment_id)
    known = {key_of(note): note for note in shown(truth.notes.get(payment_id, {}).values())}
    due = {key_of(note): note for note in expected}
    got = {key_of(note): note for note in held}
    for key, note in got.items():
        if key not in (due if is_at_rest else known):
            return f"it should have no note about {_place(note)}"
        # Before the payment is at rest, the mark ``corrected`` may differ, because the workers may
        # not have folded the correcting delivery yet.
        right = known[key] if is_at_rest else replace(known[key], corrected=note.corrected)
        if note != right:
            return f"its note about {_place(note)}: {unlike(right, note)}"
    for key, note in due.items():
        # Until the payment is at rest, the only notes that an order certainly shows are the notes
        # that name the order.
        is_due = is_at_rest or order_id in {None, note.order_reference}
        if is_due and truth.is_settled(note) and key not in got:
            return f"it lacks the note about {_place(note)}"
    return ""


def _place(note: Note) -> str:
    return f"event {note.event_id}, at partition {note.partition}, offset {note.offset}"
