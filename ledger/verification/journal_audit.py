"""The audit of the journal: each entry against its fact, each balance against the log's facts.

Input: the truth, and the records of ``ledger.entries`` in any order, any number of times. Output:
the differences: entries that the log does not explain, money that is posted twice or not at all,
and wrong balances. To save memory, only the event id of an explained entry is kept.
"""

from collections import Counter
from collections.abc import Iterable, Iterator

import msgspec

from ledger.events import Event
from ledger.journal import Entry, Posting, Subject, entry_of, postings_of, reversal_of
from ledger.payments import Standing, subject_of
from ledger.verification.differences import Difference, DifferenceKind, references
from ledger.verification.fields import unlike
from ledger.verification.truth import Truth
from ledger.wire import ENTRIES, decoded


class AuditedBalance(msgspec.Struct, frozen=True):
    """An account's balance in the journal, and according to the log, in minor units."""

    account: str
    currency: str
    journal: int
    log: int


class JournalAudit:
    """Takes entries one by one, then judges the standing entries."""

    def __init__(self, truth: Truth) -> None:
        self._truth = truth
        # These sets name the facts whose entries or reversals were read. A name has the payment
        # too, because a forgotten event id may occur again with a different payment.
        self._posted: set[tuple[str, str]] = set()
        self._reversed: set[tuple[str, str]] = set()
        self._sums: Counter[tuple[str, str]] = Counter()
        # The log may explain these entries after more of the log has been read.
        self._unexplained: dict[tuple[bytes, bytes], Difference] = {}

    @property
    def entries(self) -> int:
        """The number of distinct entries that the log explains."""
        return len(self._posted) + len(self._reversed)

    def read(self, key: bytes, value: bytes | None) -> str | None:
        """Take one record; return the entry's payment, or ``None`` if unreadable."""
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

        Payments that are not at rest are left out, because some of their entries may not have been
        written yet.
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
            for subject, amount_minor, currency in self._due(payment_id):
                _add(log, postings_of(subject, amount_minor, currency))
        accounts = sorted(journal.keys() | log.keys(), key=lambda each: each[::-1])
        return [AuditedBalance(*account, journal[account], log[account]) for account in accounts]

    def _fault(self, key: bytes, entry: Entry | None) -> Difference | None:
        name = key.decode(errors="replace")
        if entry is None:
            return _about(
                DifferenceKind.ENTRY_DIFFERS, name, "it can't be read, or does not balance"
            )
        fact = self._truth.facts.get(entry.payment_id, {}).get(entry.event_id)
        subject = subject_of(entry.payment_id, fact) if fact else None
        if fact is None or subject is None:
            detail = f"the log has no event {entry.event_id} that posts it"
            return _about(
                DifferenceKind.ENTRY_UNEXPLAINED, name, detail, payment_id=entry.payment_id
            )
        follows = (reversal_of if entry.reverses else entry_of)(subject, fact)
        if entry == follows and name == entry.entry_id:
            return None
        detail = f"it says that it is {entry.entry_id}"
        if entry.postings != follows.postings:
            detail = f"expected {_legs(follows.postings)}, got {_legs(entry.postings)}"
        elif entry != follows:
            detail = unlike(follows, entry)
        return _about(DifferenceKind.ENTRY_DIFFERS, name, detail, [fact], entry.payment_id)

    def _count(self, entry: Entry) -> None:
        # The fact's ids are in memory already; the entry's ids would be second copies.
        name = _name(self._truth.facts[entry.payment_id][entry.event_id])
        there = self._reversed if entry.reverses else self._posted
        if name not in there:
            there.add(name)
            _add(self._sums, entry.postings)

    def _posted_faults(self, payment_id: str) -> Iterator[Difference]:
        standing = Standing(self._truth.payment(payment_id)).facts
        for subject, alike in self._subjects(payment_id).items():
            # If all facts of a subject are set aside, the subject must not have a standing entry.
            due = [standing[subject]] if subject in standing else []
            stand = [fact for fact in alike if self._balance(fact) == 1]
            wrong = [fact for fact in alike if self._balance(fact) < 0]
            if stand == due and not wrong:
                continue
            name = subject.entry_id((due or alike)[0].event_id)
            if not stand and not wrong:
                detail = "the log has the event, and the journal has no standing entry of it"
                yield _about(DifferenceKind.ENTRY_MISSING, name, detail, alike, payment_id)
            else:
                detail = (
                    f"standing: {_names(stand)}; reversed without an entry: {_names(wrong)}; "
                    f"expected to stand: {_names(due)}"
                )
                yield _about(DifferenceKind.ENTRY_DIFFERS, name, detail, alike, payment_id)

    def _subjects(self, payment_id: str) -> dict[Subject, list[Event]]:
        """Return the facts of each success and refund of a payment, including facts set aside."""
        found: dict[Subject, list[Event]] = {}
        for fact in self._truth.facts[payment_id].values():
            subject = subject_of(payment_id, fact)
            if subject is not None:
                found.setdefault(subject, []).append(fact)
        return found

    def _balance(self, fact: Event) -> int:
        name = _name(fact)
        return (name in self._posted) - (name in self._reversed)

    def _due(self, payment_id: str) -> Iterator[tuple[Subject, int, str]]:
        """Yield the money that must be posted; for a payment not at rest, the posted money."""
        if self._truth.is_at_rest(payment_id):
            for subject, fact in Standing(self._truth.payment(payment_id)).facts.items():
                yield subject, fact.moved.amount_minor, fact.moved.currency
            return
        for fact in self._truth.facts[payment_id].values():
            moving = subject_of(payment_id, fact)
            if moving is not None:
                amount_minor = self._balance(fact) * fact.moved.amount_minor
                yield moving, amount_minor, fact.moved.currency


def differing(balances: Iterable[AuditedBalance]) -> Iterator[Difference]:
    """Yield a difference for each account with a wrong balance."""
    for balance in balances:
        if balance.journal != balance.log:
            yield Difference(
                kind=DifferenceKind.BALANCE_DIFFERS,
                subject=f"account {balance.account} {balance.currency}",
                detail=f"expected {balance.log} by the log, got {balance.journal} in the journal",
            )


def _name(fact: Event) -> tuple[str, str]:
    return fact.payment_id, fact.event_id


def _add(sums: Counter[tuple[str, str]], postings: Iterable[Posting]) -> None:
    for posting in postings:
        sums[posting.account, posting.currency] += posting.amount


def _legs(postings: Iterable[Posting]) -> str:
    return " and ".join(f"{each.account} {each.amount} {each.currency}" for each in postings)


def _names(facts: Iterable[Event]) -> str:
    return ", ".join(sorted(fact.event_id for fact in facts)) or "none"


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
