"""Differences: the faults that are found when a ledger is checked against its log of record.

The names of the kinds are stable, and `ledger.verification.remedies` says what each kind means.
"""

from collections.abc import Iterable
from enum import StrEnum

import msgspec

from ledger.events import Event
from ledger.notes import Note
from ledger.payment_documents import EventReference


class DifferenceKind(StrEnum):
    """The kinds of differences.

    With most kinds, a value is missing, is wrong, or is not explained by the log.

    The kinds ``replica_…`` concern a worker's disk, which is compared with the changelogs.
    ``versions_differ`` is a difference between two versions of a ledger.
    """

    LOG_INCOMPLETE = "log_incomplete"
    RECORD_MISPLACED = "record_misplaced"
    SIGNATURE_INVALID = "signature_invalid"
    SEEN_MISSING = "seen_missing"
    SEEN_DIFFERS = "seen_differs"
    SEEN_UNEXPLAINED = "seen_unexplained"
    PAYMENT_MISSING = "payment_missing"
    PAYMENT_DIFFERS = "payment_differs"
    PAYMENT_UNEXPLAINED = "payment_unexplained"
    ORDER_MISSING = "order_missing"
    ORDER_DIFFERS = "order_differs"
    ORDER_UNEXPLAINED = "order_unexplained"
    DOCUMENT_MISSING = "document_missing"
    DOCUMENT_DIFFERS = "document_differs"
    DOCUMENT_UNEXPLAINED = "document_unexplained"
    ENTRY_MISSING = "entry_missing"
    ENTRY_DIFFERS = "entry_differs"
    ENTRY_UNEXPLAINED = "entry_unexplained"
    VALUE_MISPLACED = "value_misplaced"
    BALANCE_DIFFERS = "balance_differs"
    REPLICA_DIFFERS = "replica_differs"
    REPLICA_DAMAGED = "replica_damaged"
    VERSIONS_DIFFER = "versions_differ"


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One difference: ``subject`` names the faulty value, ``detail`` is a sentence for people.

    ``events`` are the events of the value; ``payment_id`` and ``order_id`` belong to the value, if
    they are known.
    """

    kind: DifferenceKind
    subject: str
    detail: str
    events: tuple[EventReference, ...] = ()
    payment_id: str | None = None
    order_id: str | None = None

    def __str__(self) -> str:
        return f"{self.kind}  {self.subject}: {self.detail}"


def references(facts: Iterable[Event | Note]) -> tuple[EventReference, ...]:
    """Return references to facts and notes, sorted by their times."""
    ordered = sorted(facts, key=lambda fact: (fact.created, fact.event_id))
    return tuple(
        EventReference(fact.event_id, fact.type, fact.created, fact.partition, fact.offset)
        for fact in ordered
    )
