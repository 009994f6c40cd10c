"""Compares two versions of a ledger: value with value, journal with journal.

Input: the values of each version, and the truth (``ledger.verification.truth``) of the log that
both versions fold. Output: the differences, each with its events.

Two folds of the same log interleave the log's partitions differently, so they pass through
different states. The final state of a payment or an order does not depend on the interleaving. The
former orders of a payment and the reversed entries do depend on the interleaving. A value with an
unsettled fact (a fact that one version may not have folded yet) is never compared, because one
version may be ahead of the other version.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Final, NamedTuple

import msgspec

from ledger.events import Event
from ledger.journal import Entry
from ledger.notes import Note, shown
from ledger.orders import describe_whole
from ledger.verification.differences import Difference, DifferenceKind, references
from ledger.verification.fields import Fields, fields, unlike
from ledger.verification.gathered_orders import gather, whole_order
from ledger.verification.truth import Truth
from ledger.wire import ENTRIES, ORDER_DOCUMENTS, ORDERS, PAYMENTS, UNDECODABLE, decoded

# A difference of a large order names only its first events.
_MOST_NAMED: Final = 1_000

Record = tuple[bytes, bytes | None]


class View(NamedTuple):
    """One kind of compared values.

    ``says`` returns the content of a value, and ``facts`` returns the facts and notes of a key.
    ``gather`` turns the rows of a partition into one value for each key that is compared.
    """

    name: str
    says: Callable[[bytes], Any]
    facts: Callable[[Truth, str], Iterable[Event | Note]]
    gather: Callable[[Mapping[bytes, bytes]], Mapping[bytes, bytes]] = lambda rows: rows


class Held(NamedTuple):
    """The values of two versions under a key; ``None`` means no value."""

    view: View
    key: bytes
    old: bytes | None
    new: bytes | None


class Versions(NamedTuple):
    """The numbers of the two versions."""

    old: int
    new: int

    def say(self, old: str, new: str) -> str:
        """Return a phrase that states the value in each version."""
        return f"version {self.old} has {old}, version {self.new} has {new}"


def is_equal(held: Held) -> bool:
    """Return whether both versions have the same content; a missing value equals an empty value."""
    return held.old == held.new or _says(held.view, held.old) == _says(held.view, held.new)


def is_moving(truth: Truth, held: Held) -> bool:
    """Return whether a fact of a key is not settled."""
    facts = held.view.facts(truth, _text(held.key))
    return not all(truth.is_settled(fact) for fact in facts)


def differences(truth: Truth, held: Held, versions: Versions) -> Iterator[Difference]:
    """Yield a difference if the two versions differ under a key."""
    if is_equal(held):
        return
    key = _text(held.key)
    yield Difference(
        kind=DifferenceKind.VERSIONS_DIFFER,
        subject=f"{held.view.name} {key}",
        detail=_detail(held, versions),
        events=references(islice(held.view.facts(truth, key), _MOST_NAMED)),
    )


class JournalComparison:
    """Takes the records of two journals by partition; judges the records that one journal lacks."""

    def __init__(self) -> None:
        self.same = 0
        self.cancelled = 0
        self.moving = 0
        self._only: dict[int, dict[str, list[Record]]] = {}

    def read(self, versions: Versions, old: set[Record], new: set[Record]) -> None:
        """Take one partition of both journals; keep only the records that one journal lacks."""
        self.same += len(old & new)
        for version, records in ((versions.old, old - new), (versions.new, new - old)):
            by_fact = self._only.setdefault(version, defaultdict(list))
            for record in records:
                by_fact[_fact_of(record)].append(record)

    def differences(self, truth: Truth) -> Iterator[Difference]:
        """Yield the records that only one version has, if they do not cancel each other out."""
        for version, by_fact in self._only.items():
            for records in by_fact.values():
                entries = [decoded(ENTRIES.decode, value) for _, value in records]
                facts = _facts_of(truth, entries)
                if not all(truth.is_settled(fact) for fact in facts):
                    self.moving += len(records)
                elif _cancel_out(entries):
                    self.cancelled += len(records)
                else:
                    yield from (_only_in(version, record, facts) for record in records)


def _only_in(version: int, record: Record, facts: list[Event]) -> Difference:
    key, value = record
    is_entry = decoded(ENTRIES.decode, value) is not None
    what = "has an entry with this content" if is_entry else "has it, but it can't be read"
    return Difference(
        kind=DifferenceKind.VERSIONS_DIFFER,
        subject=f"entry {_text(key)}",
        detail=f"only version {version} {what}",
        events=references(facts),
    )


def _cancel_out(entries: Iterable[Entry | None]) -> bool:
    """Return whether entries of one fact, such as an entry and its reversal, sum to zero."""
    sums = Counter[tuple[str, str]]()
    for entry in entries:
        if entry is None:
            return False
        for posting in entry.postings:
            sums[posting.account, posting.currency] += posting.amount
    return not any(sums.values())


def _fact_of(record: Record) -> str:
    """Return the id of a record's entry or, for a reversal, the id of the reversed entry."""
    entry = decoded(ENTRIES.decode, record[1])
    return _text(record[0]) if entry is None else entry.reverses or entry.entry_id


def _facts_of(truth: Truth, entries: Iterable[Entry | None]) -> list[Event]:
    payments = {entry.payment_id for entry in entries if entry is not None}
    return [fact for each in payments for fact in truth.facts.get(each, {}).values()]


def _detail(held: Held, versions: Versions) -> str:
    if held.old is None or held.new is None:
        only = versions.old if held.new is None else versions.new
        return f"only version {only} has it"
    return unlike(_says(held.view, held.old), _says(held.view, held.new), versions.say)


def _says(view: View, value: bytes | None) -> Fields:
    """Return the content of a value, field by field."""
    if value is None:
        return {}
    try:
        return fields(view.says(value))
    except UNDECODABLE:
        return {"value": "unreadable"}


def _text(key: bytes) -> str:
    return key.decode(errors="replace")


def _order_says(value: bytes) -> Any:
    """Return an order's content, which is empty if no payment and no note is left in it."""
    document = describe_whole(whole_order(ORDERS.decode(value)))
    return {} if document is None else document


def _payment_says(value: bytes) -> Any:
    """Return a payment's content, which is empty if it has only void notes."""
    payment = PAYMENTS.decode(value)
    if not payment.facts and not shown(payment.notes):
        return {}
    return msgspec.structs.replace(payment, notes=shown(payment.notes))


def _payment_facts(truth: Truth, payment_id: str) -> Iterable[Event | Note]:
    yield from truth.facts.get(payment_id, {}).values()
    yield from truth.notes.get(payment_id, {}).values()


def _order_facts(truth: Truth, order_id: str) -> Iterable[Event | Note]:
    payments = list(truth.naming(order_id))
    return [fact for each in payments for fact in _payment_facts(truth, each)]


PAYMENT_VIEW: Final = View("payment", _payment_says, _payment_facts)
ORDER_VIEW: Final = View("order", _order_says, _order_facts, gather)
DOCUMENT_VIEW: Final = View("document of order", ORDER_DOCUMENTS.decode, _order_facts)
