"""The truth: the state that the ledger's rules produce from the log of record.

Input: the log's records, in offset order within each partition. Output: the facts and notes of
every payment, the event ids seen, the payments of each order, and the faults of the log itself.
Invariants: no body is kept, and no table or derived topic is read.

The log grows while tables are read. ``settled`` holds the offsets up to which the workers had
folded the log *before* any of their output was read. A table must contain every fact below these
offsets; it may lack later facts.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Final

import msgspec

from ledger.deduplication import (
    FORGET_AFTER_MS,
    START,
    Deduplicated,
    Progress,
    Seen,
    deduplicate,
    is_forgotten,
)
from ledger.dialects import is_bearer, read_envelope
from ledger.events import Event, Reading, decode_event
from ledger.notes import Note, NoteKey, key_of
from ledger.payment_documents import EventReference
from ledger.payments import Payment, payment_of
from ledger.records import SignedRecord
from ledger.rejections import Rejection
from ledger.times import seconds_of
from ledger.trust import Trust
from ledger.unread import first_offset_of
from ledger.verification.differences import Difference, DifferenceKind

# The name of the log of record in texts for people.
_LOG: Final = "plexy.webhooks"


class Truth:
    """The state that the log produces; if ``trust`` is ``None``, no signature is checked."""

    def __init__(
        self,
        reading: Reading,
        trust: Trust | None,
        partition_of: Callable[[bytes], int],
        forget_after_ms: int = FORGET_AFTER_MS,
        enforced: Trust | None = None,
    ) -> None:
        """Start without any record.

        ``partition_of`` returns the partition of a key in the ledger's topics. If the workers check
        signatures, ``enforced`` is their ``Trust``. A record with a bad signature is then not a
        fault of the log, because the workers reject it.
        """
        self.settled: Mapping[int, int] = {}
        self.facts: dict[str, dict[str, Event]] = {}
        self.notes: dict[str, dict[NoteKey, Note]] = {}
        # ``seen`` and ``uncorrected`` have an entry for each partition. ``seen`` has only the event
        # ids that are not forgotten.
        self.seen: dict[int, dict[bytes, Seen]] = {}
        # An id is corrected if its earlier deliveries did not count and a later delivery counts.
        # The previous row of each corrected id is kept here; few ids are corrected.
        self.uncorrected: dict[int, dict[bytes, Seen]] = {}
        self.progress: dict[int, Progress] = {}
        self.faults: list[Difference] = []
        self.counts: Counter[str] = Counter()
        self.partition_of = partition_of
        self._reading = reading
        self._forget_after_ms = forget_after_ms
        self._trust = trust
        self._enforced = enforced
        self._next_offset: dict[int, int] = {}
        # ``_named`` maps an order to the payments that named the order: to one payment's id, or to
        # a dict of several ids.
        self._named: dict[str, str | dict[str, None]] = {}
        # ``_made`` caches payments, each with the numbers of facts and notes from which it was
        # built.
        self._made: dict[str, tuple[tuple[int, int], Payment]] = {}
        self._strings: dict[str, str] = {}
        # ``find`` uses this index, which is rebuilt when facts have been added.
        self._payment_of: dict[str, str] = {}
        self._indexed = 0

    def read(self, partition: int, records: Sequence[SignedRecord]) -> Deduplicated:
        """Take the next records of a partition; return their verdicts."""
        seen = self.seen.setdefault(partition, {})
        for record in records:
            self._expect(partition, first_offset_of(record.offset, record.value))
            self._next_offset[partition] = record.offset + 1
            self._check(record)
        progress = self.progress.get(partition, START)
        result = deduplicate(
            records, seen, self._reading, progress, self._forget_after_ms, self._enforced
        )
        self.progress[partition] = result.progress
        self.uncorrected.setdefault(partition, {}).update(result.uncorrected)
        self._remember(partition, result.seen)
        self.counts.update(result.counts)
        self.counts["records"] += len(records)
        for event in result.events:
            self._add(event)
        for note in result.notes:
            self._note(note)
        return result

    def reached(self, partition: int, end: int) -> None:
        """Note that a partition was read up to ``end``; report the offsets that are missing."""
        self._expect(partition, end)
        was = self.next_offset(partition)
        if end < was:
            self._incomplete(partition, f"it ends at offset {end}, but had been read up to {was}")

    def next_offset(self, partition: int) -> int:
        """Return the offset after the last record that was read from a partition."""
        return self._next_offset.get(partition, 0)

    def is_settled(self, fact: Event | Note) -> bool:
        """Return whether the workers had folded a fact or note before their tables were read."""
        return fact.offset < self.settled.get(fact.partition, 0)

    def is_forgotten(self, partition: int, seen: Seen) -> bool:
        """Return whether an event id is forgotten, so that its row may be deleted."""
        progress = self.progress.get(partition, START)
        return is_forgotten(seen, progress.timestamp_ms, self._forget_after_ms)

    def is_at_rest(self, payment_id: str) -> bool:
        """Return whether all facts and notes of a payment are settled."""
        facts, notes = self.facts.get(payment_id, {}), self.notes.get(payment_id, {})
        return all(map(self.is_settled, facts.values())) and all(
            map(self.is_settled, notes.values())
        )

    @property
    def payments(self) -> Collection[str]:
        """The ids of the payments that have a fact or a note."""
        return self.facts.keys() | self.notes.keys() if self.notes else self.facts.keys()

    def orders(self) -> set[str]:
        """Return the orders that show a payment or a note."""
        payments = map(self.payment, self.payments)
        return {order_id for payment in payments for order_id in payment.orders}

    def knows(self, payment_id: str) -> bool:
        """Return whether the log has a fact or a note about a payment."""
        return payment_id in self.facts or payment_id in self.notes

    def payment(self, payment_id: str) -> Payment:
        """Return the payment that results from all its facts and notes in the log."""
        facts, notes = self.facts.get(payment_id, {}), self.notes.get(payment_id, {})
        count = len(facts), len(notes)
        was, made = self._made.get(payment_id, (count, None))
        if made is None or count != was:
            made = payment_of(payment_id, facts, notes.values())
            if made.facts is not facts or notes:
                self._made[payment_id] = count, made
        return made

    def naming(self, order_id: str) -> Iterator[str]:
        """Yield the payments that may belong to an order, because a fact or a note names it."""
        found = self._named.get(order_id, {})
        named = [found] if isinstance(found, str) else found
        yield from named
        if self.knows(order_id) and order_id not in named:
            # A payment that names no order is an order of its own.
            yield order_id

    def has_named(self, order_id: str, payment_id: str) -> bool:
        """Return whether ``naming`` yields this payment for this order."""
        named = self._named.get(order_id, {})
        is_named = payment_id == named if isinstance(named, str) else payment_id in named
        return is_named or (payment_id == order_id and self.knows(payment_id))

    def residents(self, order_id: str) -> Iterator[str]:
        """Yield each payment at rest if the order shows the payment or one of its notes."""
        for payment_id in self.naming(order_id):
            if order_id in self.payment(payment_id).orders and self.is_at_rest(payment_id):
                yield payment_id

    def moving(self) -> int:
        """Count the payments that are not at rest."""
        return sum(not self.is_at_rest(each) for each in self.payments)

    def find(self, partition: int, event_id: str) -> Event | None:
        """Find an event by its id; use this slow search only for the events of differences."""
        if self._indexed != self.counts["folded"]:
            self._payment_of = {
                event_id: payment_id
                for payment_id, facts in self.facts.items()
                for event_id in facts
            }
            self._indexed = self.counts["folded"]
        fact = self.facts.get(self._payment_of.get(event_id, ""), {}).get(event_id)
        return fact if fact is not None and fact.partition == partition else None

    def _remember(self, partition: int, new: Mapping[bytes, Seen]) -> None:
        """Add ids to ``seen``, which is sorted by the log's time; drop forgotten ids."""
        seen = self.seen[partition]
        for key, value in new.items():
            # A redelivered id keeps its place in ``seen``, unless its row gets a new offset, and
            # with it a new time.
            if key in seen and seen[key].offset != value.offset:
                del seen[key]
            seen[key] = value
        forgotten = takewhile(lambda key: self.is_forgotten(partition, seen[key]), seen)
        for key in list(forgotten):
            del seen[key]

    def _add(self, event: Event) -> None:
        # Many events share a few types and currencies, so each of these texts is kept only once.
        share = self._strings.setdefault
        money = event.money
        if money is not None:
            currency = share(money.currency, money.currency)
            money = msgspec.structs.replace(money, currency=currency)
        event = msgspec.structs.replace(event, type=share(event.type, event.type), money=money)
        payment_id = event.payment_id
        # As in the fold, an event with a known id changes nothing.
        self.facts.setdefault(payment_id, {}).setdefault(event.event_id, event)
        self._name(payment_id, event.order_reference)

    def _note(self, note: Note) -> None:
        self.notes.setdefault(note.kept_under, {}).setdefault(key_of(note), note)
        self._name(note.kept_under, note.order_reference)

    def _name(self, payment_id: str, order_id: str | None) -> None:
        if order_id is not None:
            named = self._named.setdefault(order_id, payment_id)
            if isinstance(named, dict):
                named[payment_id] = None
            elif named != payment_id:
                self._named[order_id] = {named: None, payment_id: None}

    def _expect(self, partition: int, offset: int) -> None:
        expected = self.next_offset(partition)
        if offset > expected:
            self._next_offset[partition] = offset
            self._incomplete(partition, f"offsets {expected} to {offset - 1} are missing")

    def _incomplete(self, partition: int, detail: str) -> None:
        subject = f"{_LOG}[{partition}]"
        fault = Difference(kind=DifferenceKind.LOG_INCOMPLETE, subject=subject, detail=detail)
        # If the log has lost its end, each reading finds the same fault.
        if fault not in self.faults:
            self.faults.append(fault)

    def _check(self, record: SignedRecord) -> None:
        fault = self._trust.fault(record) if self._trust else None
        if is_bearer(record.headers):
            self.counts["bearer"] += 1
        if fault is not None:
            self.counts["signatures_bad"] += 1
        if fault is not None and self._enforced is None:
            self._blame(record, DifferenceKind.SIGNATURE_INVALID, fault)
        # A record without a key belongs to no particular partition, and is never folded.
        right = record.partition if record.key is None else self.partition_of(record.key)
        if right != record.partition:
            self._blame(
                record, DifferenceKind.RECORD_MISPLACED, f"its key belongs to partition {right}"
            )

    def _blame(self, record: SignedRecord, kind: DifferenceKind, detail: str) -> None:
        place = f"{_LOG}[{record.partition}]@{record.offset}"
        envelope = read_envelope(record)
        if isinstance(envelope, Rejection):
            key = (record.key or b"").decode(errors="replace")
            subject = f"record {place}, key {key:.80}"
            self.faults.append(Difference(kind=kind, subject=subject, detail=detail))
            return
        event = decode_event(
            envelope, record.partition, record.offset, record.timestamp, self._reading
        )
        created = seconds_of(envelope.created) or 0
        reference = EventReference(
            envelope.id, envelope.type, created, record.partition, record.offset
        )
        self.faults.append(
            Difference(
                kind=kind,
                subject=f"record {place}, event {envelope.id}",
                detail=detail,
                events=(reference,),
                payment_id=event.payment_id if isinstance(event, Event) else None,
                order_id=event.order_reference if isinstance(event, Event) else None,
            )
        )
