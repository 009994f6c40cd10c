"""The comparison of two versions of a ledger: value against value, journal against journal.

In: what each version holds, and the truth of the log that both follow from. Out: the differences,
each with the events behind it. Pure.

Two folds of one log meet its partitions interleaved in other ways, so that they pass through other
states. What a payment or an order *is* does not depend on it; which orders a payment once left, and
which entries were taken back again, does. Never compared: a value whose facts are in motion, since
one version may be ahead of the other.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Final, NamedTuple

import msgspec

from ledger.events import Event
from ledger.journal import Entry
from ledger.orders import describe_whole
from ledger.verification.differences import Difference, Kind, references
from ledger.verification.fields import Fields, fields, unlike
from ledger.verification.gathered_orders import gather, whole_order
from ledger.verification.truth import Truth
from ledger.wire import ENTRIES, ORDER_DOCUMENTS, ORDERS, PAYMENTS

# A difference of a large order names the first of its events.
_MOST_NAMED: Final = 1_000
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

Record = tuple[bytes, bytes | None]


class View(NamedTuple):
    """How values are compared: what they say, and which facts are behind a key.

    ``gather`` makes one value of each key of the rows of a partition.
    """

    name: str
    says: Callable[[bytes], Any]
    facts: Callable[[Truth, str], Iterable[Event]]
    gather: Callable[[Mapping[bytes, bytes]], Mapping[bytes, bytes]] = lambda rows: rows


class Held(NamedTuple):
    """What two versions hold under a key; ``None`` for nothing."""

    view: View
    key: bytes
    old: bytes | None
    new: bytes | None


class Versions(NamedTuple):
    """The numbers of the two versions."""

    old: int
    new: int

    def say(self, old: str, new: str) -> str:
        """Say what each has."""
        return f"version {self.old} has {old}, version {self.new} has {new}"


def is_equal(held: Held) -> bool:
    """Whether both versions say the same; what is not there says nothing."""
    return held.old == held.new or _says(held.view, held.old) == _says(held.view, held.new)


def is_moving(truth: Truth, held: Held) -> bool:
    """Whether some of the facts behind a key are not settled."""
    facts = held.view.facts(truth, _text(held.key))
    return not all(truth.is_settled(fact) for fact in facts)


def differences(truth: Truth, held: Held, versions: Versions) -> Iterator[Difference]:
    """Yield a difference if two versions do not say the same under a key."""
    if is_equal(held):
        return
    key = _text(held.key)
    yield Difference(
        kind=Kind.VERSIONS_DIFFER,
        subject=f"{held.view.name} {key}",
        detail=_detail(held, versions),
        events=references(islice(held.view.facts(truth, key), _MOST_NAMED)),
    )


class JournalComparison:
    """Takes two journals' records, a partition at a time, then judges what only one of them has."""

    def __init__(self) -> None:
        self.same = 0
        self.cancelled = 0
        self.moving = 0
        self._only: dict[int, dict[str, list[Record]]] = {}

    def read(self, versions: Versions, old: set[Record], new: set[Record]) -> None:
        """Take a partition of both; the records that both have are alike to the byte."""
        self.same += len(old & new)
        for version, records in ((versions.old, old - new), (versions.new, new - old)):
            by_fact = self._only.setdefault(version, defaultdict(list))
            for record in records:
                by_fact[_fact_of(record)].append(record)

    def differences(self, truth: Truth) -> Iterator[Difference]:
        """Yield a difference for each entry that only one has, unless it was taken back there."""
        for version, by_fact in self._only.items():
            for records in by_fact.values():
                entries = [_entry(value) for _, value in records]
                facts = _facts_of(truth, entries)
                if not all(truth.is_settled(fact) for fact in facts):
                    self.moving += len(records)
                elif _cancel_out(entries):
                    self.cancelled += len(records)
                else:
                    yield from (_only_in(version, record, facts) for record in records)


def _only_in(version: int, record: Record, facts: list[Event]) -> Difference:
    key, value = record
    what = "has it, or has it so" if _entry(value) else "has it, and it can't be read"
    return Difference(
        kind=Kind.VERSIONS_DIFFER,
        subject=f"entry {_text(key)}",
        detail=f"only version {version} {what}",
        events=references(facts),
    )


def _cancel_out(entries: Iterable[Entry | None]) -> bool:
    """Whether entries of one fact sum to nothing on every account: an entry and its reversal."""
    sums = Counter[tuple[str, str]]()
    for entry in entries:
        if entry is None:
            return False
        for posting in entry.postings:
            sums[posting.account, posting.currency] += posting.amount
    return not any(sums.values())


def _fact_of(record: Record) -> str:
    """Name the entry that a record is, or takes back."""
    entry = _entry(record[1])
    return _text(record[0]) if entry is None else entry.reverses or entry.entry_id


def _facts_of(truth: Truth, entries: Iterable[Entry | None]) -> list[Event]:
    payments = {entry.payment_id for entry in entries if entry is not None}
    return [fact for each in payments for fact in truth.facts.get(each, {}).values()]


def _entry(value: bytes | None) -> Entry | None:
    try:
        return None if value is None else ENTRIES.decode(value)
    except _UNREADABLE:
        return None


def _detail(held: Held, versions: Versions) -> str:
    if held.old is None or held.new is None:
        only = versions.old if held.new is None else versions.new
        return f"only version {only} has it"
    return unlike(_says(held.view, held.old), _says(held.view, held.new), versions.say)


def _says(view: View, value: bytes | None) -> Fields:
    """Return what a value says, field by field."""
    if value is None:
        return {}
    try:
        return fields(view.says(value))
    except _UNREADABLE:
        return {"value": "unreadable"}


def _text(key: bytes) -> str:
    return key.decode(errors="replace")


def _order_says(value: bytes) -> Any:
    """Say what an order is: nothing, if all its payments have left it."""
    document = describe_whole(whole_order(ORDERS.decode(value)))
    return {} if document is None else document


def _payment_facts(truth: Truth, payment_id: str) -> Iterable[Event]:
    return truth.facts.get(payment_id, {}).values()


def _order_facts(truth: Truth, order_id: str) -> Iterable[Event]:
    payments = list(truth.naming(order_id))
    return [fact for each in payments for fact in truth.facts[each].values()]


PAYMENT_VIEW: Final = View("payment", PAYMENTS.decode, _payment_facts)
ORDER_VIEW: Final = View("order", _order_says, _order_facts, gather)
DOCUMENT_VIEW: Final = View("document of order", ORDER_DOCUMENTS.decode, _order_facts)
