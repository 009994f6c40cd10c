"""Standing facts: the facts of a payment that move money, whatever their order of arrival.

Input: the facts of one payment, one at a time. Output: for each movement of money, the facts that
cause it. The movement *rests on* these facts, and these facts *stand*. Invariants: a movement rests
on the earliest facts that can cause it. So an earlier fact may replace the facts of a movement, and
a later fact never does. Facts that were replaced never stand again, not even after later facts have
been set aside. So an entry is never posted twice.
"""

from bisect import insort
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec

from ledger.events import Event
from ledger.journal import Facts, Subject
from ledger.kept_facts import key_of as by_time
from ledger.lifecycle import CAPTURED, REFUNDED, SUCCEEDED, Kind

OUTCOMES: Final = frozenset({Kind.DISPUTE_WON, Kind.DISPUTE_LOST})
OF_DISPUTE: Final = frozenset({Kind.DISPUTED, *OUTCOMES})
_GROUPED: Final = OF_DISPUTE | {Kind.CAPTURED, Kind.REFUND_REVERSED}

Change = tuple[Subject, Facts | None, Facts | None]
"""A subject, its standing facts, and the facts that stood before."""

_NOTHING: Final[Sequence[Change]] = ()


def earlier(one: Event | None, other: Event) -> Event:
    """Return the earlier of two facts, by time and then by event id."""
    return one if one is not None and by_time(one) <= by_time(other) else other


def own_id(payment_id: str, fact: Event) -> str:
    """Return a refund's or capture's id; the event's id if the fact has only the payment's id."""
    return fact.data_id if fact.data_id != payment_id else fact.event_id


def subject_of(payment_id: str, fact: Event) -> Subject | None:
    """Return the subject of the entry that a fact posts by itself, or ``None`` for no entry."""
    kind = fact.kind
    if kind is SUCCEEDED:
        return Subject(payment_id)
    if kind is REFUNDED:
        return Subject(payment_id, own_id(payment_id, fact))
    if kind is CAPTURED:
        return Subject(payment_id, None, "capture", own_id(payment_id, fact))
    return None


def reversal_among(refund: Event, reversals: Iterable[Event]) -> Event | None:
    """Return the reversal of a refund: the earliest reversal that does not precede the refund.

    If a refund first fails and then succeeds, it counts. So a reversal that precedes the refund is
    ignored. ``reversals`` are sorted by time.
    """
    return next((fact for fact in reversals if fact.created >= refund.created), None)


class Standing:
    """The standing facts of a payment.

    ``facts`` has the standing facts of each subject. ``order_id`` is the order reference of the
    earliest fact that names an order. If no fact names an order, it is the payment's own id.
    """

    __slots__ = ("_carrier", "_groups", "_payment_id", "facts", "names_several")

    def __init__(self, payment_id: str, facts: Iterable[Event]) -> None:
        self.facts: dict[Subject, Facts] = {}
        self.names_several = False
        self._payment_id = payment_id
        self._carrier: Event | None = None
        # Few payments have facts that count together as a group. Only such a payment gets a dict of
        # its own.
        self._groups: dict[Subject, _Group] = _NO_GROUPS
        for fact in facts:
            self.add(fact)

    @property
    def order_id(self) -> str:
        """The order that the payment belongs to."""
        return (self._carrier.order_reference if self._carrier else None) or self._payment_id

    def add(self, fact: Event) -> Sequence[Change]:
        """Take a fact into account; return the subjects whose standing facts change."""
        if fact.order_reference is not None:
            carrier = self._carrier
            if carrier is not None and carrier.order_reference != fact.order_reference:
                self.names_several = True
            self._carrier = earlier(carrier, fact)
        changes = _NOTHING
        subject = subject_of(self._payment_id, fact)
        if subject is not None:
            before = self.facts.get(subject)
            if before is None or by_time(fact) < by_time(before[0]):
                self.facts[subject] = (fact,)
                changes = ((subject, (fact,), before),)
        if self._groups or fact.kind in _GROUPED:
            base = self._base_of(fact)
            if base is not None and fact.kind in _GROUPED:
                if self._groups is _NO_GROUPS:
                    self._groups = {}
                insort(self._groups.setdefault(base, _Group()).facts, fact, key=by_time)
            changes = (*changes, *self._moved(base))
        return changes

    def remove(self, fact: Event) -> Sequence[Change]:
        """Forget the latest fact; return the subjects whose standing facts change.

        No other fact takes its place: if an earlier fact could stand, it would already stand.
        """
        if self._carrier is fact:
            self._carrier = None
        changes = _NOTHING
        subject = subject_of(self._payment_id, fact)
        if subject is not None and self.facts.get(subject) == (fact,):
            changes = ((subject, None, self.facts.pop(subject)),)
        base = self._base_of(fact)
        # A fact that was set aside as soon as it arrived is in no group.
        if base in self._groups and fact in self._groups[base].facts:
            self._groups[base].facts.remove(fact)
        return (*changes, *self._moved(base))

    def _base_of(self, fact: Event) -> Subject | None:
        """Return the subject under which a fact counts together with other facts."""
        match fact.kind:
            case Kind.SUCCEEDED | Kind.CAPTURED:
                return Subject(self._payment_id)
            case Kind.REFUNDED | Kind.REFUND_REVERSED:
                return Subject(self._payment_id, own_id(self._payment_id, fact))
            case Kind.DISPUTED | Kind.DISPUTE_WON | Kind.DISPUTE_LOST:
                return Subject(self._payment_id, None, "dispute", fact.data_id)
            case _:
                return None

    def _moved(self, base: Subject | None) -> list[Change]:
        """Update the movements that rest on several facts; return their changes."""
        group = self._groups.get(base) if base is not None else None
        if base is None or group is None:
            return []
        now = dict(
            _movements(base, self.facts.get(base) if base.movement is None else None, group.facts)
        )
        before, group.movements = group.movements, now
        changes: list[Change] = []
        for subject in dict.fromkeys([*before, *now]):
            facts, stood = now.get(subject), before.get(subject)
            if facts is None:
                del self.facts[subject]
            else:
                self.facts[subject] = facts
            if facts != stood:
                changes.append((subject, facts, stood))
        return changes


class _Group:
    """Facts that count together, sorted by time, and the movements that rest on them."""

    __slots__ = ("facts", "movements")

    def __init__(self) -> None:
        self.facts: list[Event] = []
        self.movements: dict[Subject, Facts] = {}


_NO_GROUPS: Final[dict[Subject, _Group]] = {}


def _movements(
    base: Subject, standing: Facts | None, facts: list[Event]
) -> Iterator[tuple[Subject, Facts]]:
    """Yield a group's movements; ``standing`` holds the standing success or refund of ``base``."""
    payment_id, refund_id, is_dispute, dispute_id, _ = msgspec.structs.astuple(base)
    if is_dispute:
        yield from _of_dispute(payment_id, dispute_id, facts)
    elif standing is None or not facts:
        return
    elif refund_id is None:
        pair = sorted((standing[0], facts[0]), key=by_time, reverse=True)
        yield Subject(payment_id, None, "replacement"), tuple(pair)
    else:
        reversal = reversal_among(standing[0], facts)
        if reversal is not None:
            yield Subject(payment_id, refund_id, "refund_reversal"), (reversal, standing[0])


def _of_dispute(
    payment_id: str, dispute_id: str, facts: list[Event]
) -> Iterator[tuple[Subject, Facts]]:
    """Yield the movements of a dispute: its opening by its first fact, and each outcome.

    The amount is that of the earliest fact that states an amount. If no fact states an amount, no
    money moves.
    """
    amount = next((fact for fact in facts if fact.money is not None), None)
    if amount is None:
        return
    yield Subject(payment_id, None, "dispute", dispute_id), (facts[0], amount)
    last: Facts = ()
    for fact in facts:
        if fact.kind in OUTCOMES:
            subject = Subject(payment_id, None, "dispute_outcome", dispute_id, fact.event_id)
            yield subject, (fact, *last, amount)
            last = (fact,)
