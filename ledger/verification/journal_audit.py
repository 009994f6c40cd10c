"""The audit of the journal: compares entries with their facts, and balances with all facts.

Input: the truth (``ledger.verification.truth``), and the records of ``ledger.entries``, in any
sequence and each any number of times. Output: the differences, which are entries that the log does
not explain, money that is posted twice or not at all, and wrong balances. Once the log explains an
entry, only the ids of the entry's payment and events are kept, to save memory.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from ledger.events import Event
from ledger.journal import (
    Entry,
    Facts,
    Posting,
    Subject,
    entry_of,
    ids_of,
    reversal_of,
    subject_of_entry,
)
from ledger.payments import standing_of
from ledger.standing import Standing, subject_of
from ledger.verification.differences import Difference, DifferenceKind, references
from ledger.verification.fields import unlike
from ledger.verification.truth import Truth
from ledger.wire import ENTRIES, decoded

_Name = tuple[str, ...]


class AuditedBalance(msgspec.Struct, frozen=True):
    """An account's balance in minor units, as the journal has it and as the log produces it."""

    account: str
    currency: str
    journal: int
    log: int


class JournalAudit:
    """Takes entries one by one, then judges the standing (not reversed) entries."""

    def __init__(self, truth: Truth) -> None:
        self._truth = truth
        # These sets contain the names (``_name``) of the movements whose entries or reversals were
        # read. A name also contains the payment id. The ledger forgets old event ids, so the same
        # event id may occur again with a different payment.
        self._posted: set[_Name] = set()
        self._reversed: set[_Name] = set()
        # For each payment, the movements that rest on several facts and whose entries have been
        # read.
        self._joint: dict[str, dict[_Name, tuple[Subject, Facts]]] = {}
        self._sums: Counter[tuple[str, str]] = Counter()
        # When more of the log has been read, the log may explain these entries.
        self._unexplained: dict[tuple[bytes, bytes], Difference] = {}

    @property
    def entries(self) -> int:
        """The number of distinct entries that the log explains."""
        return len(self._posted) + len(self._reversed)

    def read(self, key: bytes, value: bytes | None) -> str | None:
        """Take one record; return the entry's payment, or ``None`` if the entry is unreadable."""
        entry = decoded(ENTRIES.decode, value)
        difference = self._fault(key, entry)
        record = (key, value or b"")
        if difference is not None:
            self._unexplained[record] = difference
        else:
            self._unexplained.pop(record, None)
            if entry:
                self._count(entry)
        return entry.payment_id if entry else None

    def differences(self, payments: Iterable[str]) -> Iterator[Difference]:
        """Yield the unexplained entries, then the faults in the entries of these payments.

        Payments that are not at rest (``Truth.is_at_rest``) are left out, because some of their
        entries may not have been written yet.
        """
        for key, value in list(self._unexplained):
            self.read(key, value)
        yield from self._unexplained.values()
        for payment_id in payments:
            if payment_id in self._truth.facts and self._truth.is_at_rest(payment_id):
                yield from self._posted_faults(payment_id)

    def balances(self) -> list[AuditedBalance]:
        """Return each account's balance by currency, in the journal and according to the log."""
        journal, log = Counter(self._sums), Counter[tuple[str, str]]()
        for _, value in self._unexplained:
            entry = decoded(ENTRIES.decode, value)
            _add(journal, entry.postings if entry else ())
        for payment_id in self._truth.facts:
            for postings, times in self._due(payment_id):
                _add(log, postings, times)
        accounts = sorted(journal.keys() | log.keys(), key=lambda each: each[::-1])
        return [AuditedBalance(*account, journal[account], log[account]) for account in accounts]

    def _fault(self, key: bytes, entry: Entry | None) -> Difference | None:
        name = key.decode(errors="replace")
        if entry is None:
            return _about(
                DifferenceKind.ENTRY_DIFFERS, name, "it can't be read, or does not balance"
            )
        subject, facts = subject_of_entry(entry), self._facts_of(entry)
        # One fact may state both the outcome and the amount of a dispute. ``facts`` then has that
        # fact twice.
        distinct = {fact.event_id: fact for fact in facts}
        if Standing(entry.payment_id, distinct.values()).facts.get(subject) != facts:
            detail = f"the log has no event {entry.event_id} that posts it"
            return _about(
                DifferenceKind.ENTRY_UNEXPLAINED, name, detail, payment_id=entry.payment_id
            )
        follows = (reversal_of if entry.reverses else entry_of)(subject, facts)
        if entry == follows and name == entry.entry_id:
            return None
        detail = f"its stored id is {entry.entry_id}"
        if entry.postings != follows.postings:
            detail = f"expected {_legs(follows.postings)}, got {_legs(entry.postings)}"
        elif entry != follows:
            detail = unlike(follows, entry)
        return _about(DifferenceKind.ENTRY_DIFFERS, name, detail, facts, entry.payment_id)

    def _facts_of(self, entry: Entry) -> Facts:
        """Return the facts that an entry names.

        These facts, without any others of the payment, must be enough to produce the entry's
        movement.
        """
        known = self._truth.facts.get(entry.payment_id, {})
        ids = (entry.event_id, *entry.other_event_ids)
        return tuple(known[event_id] for event_id in ids if event_id in known)

    def _count(self, entry: Entry) -> None:
        # The name is built from the facts' ids, which are in memory already. The ids in the entry
        # would be second copies.
        subject, facts = subject_of_entry(entry), self._facts_of(entry)
        name = _name(subject, facts)
        there = self._reversed if entry.reverses else self._posted
        if name not in there:
            there.add(name)
            _add(self._sums, entry.postings)
        if len(facts) > 1:
            self._joint.setdefault(facts[0].payment_id, {})[name] = subject, facts

    def _posted_faults(self, payment_id: str) -> Iterator[Difference]:
        standing = standing_of(self._truth.payment(payment_id)).facts
        for subject, alike in self._subjects(payment_id, standing).items():
            # If all facts of a subject are set aside, the subject must not have a standing entry.
            due = [standing[subject]] if subject in standing else []
            stand = [facts for facts in alike if self._balance(subject, facts) == 1]
            wrong = [facts for facts in alike if self._balance(subject, facts) < 0]
            if stand == due and not wrong:
                continue
            name = subject.entry_id(*ids_of((due or alike)[0]))
            events = [fact for facts in alike for fact in facts]
            if not stand and not wrong:
                detail = "the log has the event, but the journal has no standing entry of it"
                yield _about(DifferenceKind.ENTRY_MISSING, name, detail, events, payment_id)
            else:
                detail = (
                    f"standing: {_names(stand)}; reversed without an entry: {_names(wrong)}; "
                    f"expected to stand: {_names(due)}"
                )
                yield _about(DifferenceKind.ENTRY_DIFFERS, name, detail, events, payment_id)

    def _subjects(
        self, payment_id: str, standing: Mapping[Subject, Facts]
    ) -> dict[Subject, list[Facts]]:
        """Return the facts on which each movement rests, or may have rested before.

        These include facts that are set aside.
        """
        found: dict[Subject, dict[tuple[str, ...], Facts]] = {}
        alone = ((subject_of(payment_id, each), (each,)) for each in self._facts_in(payment_id))
        joint = self._joint.get(payment_id, {}).values()
        for subject, facts in (*alone, *joint, *standing.items()):
            if subject is not None:
                found.setdefault(subject, {})[ids_of(facts)] = facts
        return {subject: list(each.values()) for subject, each in found.items()}

    def _facts_in(self, payment_id: str) -> Iterable[Event]:
        return self._truth.facts[payment_id].values()

    def _balance(self, subject: Subject, facts: Facts) -> int:
        name = _name(subject, facts)
        return (name in self._posted) - (name in self._reversed)

    def _due(self, payment_id: str) -> Iterator[tuple[tuple[Posting, ...], int]]:
        """Yield the legs that must be posted.

        If a payment is not at rest, the legs that are posted are taken as right.
        """
        if self._truth.is_at_rest(payment_id):
            for standing in standing_of(self._truth.payment(payment_id)).facts.items():
                yield entry_of(*standing).postings, 1
            return
        for subject, each in self._subjects(payment_id, {}).items():
            for facts in each:
                yield entry_of(subject, facts).postings, self._balance(subject, facts)


def differing(balances: Iterable[AuditedBalance]) -> Iterator[Difference]:
    """Yield a difference for each account with a wrong balance."""
    for balance in balances:
        if balance.journal != balance.log:
            yield Difference(
                kind=DifferenceKind.BALANCE_DIFFERS,
                subject=f"account {balance.account} {balance.currency}",
                detail=f"expected {balance.log} by the log, got {balance.journal} in the journal",
            )


def _name(subject: Subject, facts: Facts) -> _Name:
    """Return a name for a movement.

    A movement that rests on one fact is named after that fact, because a single fact causes at most
    one movement by itself.
    """
    ids = ids_of(facts)
    return (facts[0].payment_id, *ids) if len(ids) == 1 else (*ids, subject.entry_id(*ids))


def _add(sums: Counter[tuple[str, str]], postings: Iterable[Posting], times: int = 1) -> None:
    for posting in postings:
        sums[posting.account, posting.currency] += times * posting.amount


def _legs(postings: Iterable[Posting]) -> str:
    return " and ".join(f"{each.account} {each.amount} {each.currency}" for each in postings)


def _names(each: Iterable[Facts]) -> str:
    return ", ".join(sorted("+".join(ids_of(facts)) for facts in each)) or "none"


def _about(
    kind: DifferenceKind,
    entry_id: str,
    detail: str,
    facts: Iterable[Event] = (),
    payment_id: str | None = None,
) -> Difference:
    subject, events = f"entry {entry_id}", references(facts)
    return Difference(
        kind=kind, subject=subject, detail=detail, events=events, payment_id=payment_id
    )
