"""The quarantine: the items in ``plexy.rejected``, and which of them may be put back.

``Quarantine`` reads the records of ``plexy.rejected``, each partition in offset order, and returns
items with their state. A rejection that was written twice is one item. If an item was put back to
the topic ``ledger.events`` of one version of the ledger, the item stays open for the other
versions. If a different delivery of an item's event counts instead, the item has the state
``corrected``.

``judge_logged`` and ``judge_delivery`` judge a rejected record again, with the current code and
settings, as a fold from scratch does. ``judge_logged`` returns the event to append, and
``judge_delivery`` returns the envelope of the delivery to append. Each of them may return a
``Refusal`` instead.
"""

from collections.abc import Iterable
from hashlib import sha256
from operator import attrgetter
from typing import Final, Literal, NamedTuple

import msgspec

from ledger.deduplication import deduplicate
from ledger.dialects import read_envelope
from ledger.envelope import MAX_ID_BYTES, Envelope
from ledger.events import Event, Reading
from ledger.records import SignedRecord
from ledger.rejected import HTTP, Unkept, is_number, key_without_id, unkept
from ledger.rejections import Reason, Rejection
from ledger.topics import TopicNames
from ledger.trust import Trust

_UNKNOWN: Final = "unknown"
# The first 64 bits of a body's digest identify the body, and in hex they are short enough to type.
_ID_DIGITS: Final = 16
# The longest detail has a thousand characters, of at most four bytes each.
_MAX_HEADER_BYTES: Final = 4096

_DECISIONS: Final = {
    Reason.EVENT_ID_REUSED: "its id was seen before with other content, and that content counts",
    Reason.TOO_MANY_EVENTS: (
        "its payment has room only for its earliest facts, and this event is later than those"
    ),
    Reason.KEY_MISMATCH: (
        "its record lies under another key than the event's id, so duplicates would not be found"
    ),
}


ItemState = Literal["open", "put_back", "corrected"]


class Source(NamedTuple):
    """The place of a record."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


class PutBack(NamedTuple):
    """The place to which an item was put back, and the time in Unix milliseconds.

    If the item ``is_corrected``, the place is that of the delivery that counts instead.
    """

    to: str
    at_ms: int
    is_corrected: bool = False


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One rejected record or delivery, however often its rejection was written.

    ``source`` is the item's place in a topic, or ``None`` for a delivery that ingress refused.
    ``origin`` is the name of the topic, or ``http``. ``kept`` is the partition and offset of the
    item's first record in ``plexy.rejected``, and ``at_ms`` is that record's time. If the rejected
    bytes are too large for ``plexy.rejected``, ``unkept`` describes them, and the source has them.
    """

    id: str
    origin: str
    source: Source | None
    reason: str
    detail: str
    key: bytes
    kept: tuple[int, int]
    at_ms: int
    times: int = 1
    put_back: PutBack | None = None
    unkept: Unkept | None = None

    @property
    def position(self) -> tuple[int, str, int, int]:
        """The item's sort key: its time, then its source."""
        return (self.at_ms, *(self.source or (self.id, 0, 0)))

    @property
    def is_open(self) -> bool:
        """Whether the last record about the item is a rejection."""
        return self.put_back is None

    @property
    def state(self) -> ItemState:
        """The state of the item."""
        if self.put_back is None:
            return "open"
        return "corrected" if self.put_back.is_corrected else "put_back"


class Refusal(NamedTuple):
    """The reason why an item is not put back, as the end of a sentence."""

    why: str


class Quarantine:
    """The items of ``plexy.rejected`` by id, as one version of the ledger sees them.

    All versions share that topic. An item that was put back to the log is closed for every version.
    An item that was put back to the ``ledger.events`` of a different version is still open for this
    version.
    """

    def __init__(self, names: TopicNames) -> None:
        self.items: dict[str, Item] = {}
        self._ways_back = {names.webhooks, names.events}
        self._ids: dict[bytes, set[str]] = {}

    def read(self, records: Iterable[SignedRecord]) -> None:
        """Take the next records of a partition; an item's records are all in one partition."""
        for record in records:
            self._add(record)

    def ordered(self) -> list[Item]:
        """Return all items, newest last; see ``Item.position``."""
        return sorted(self.items.values(), key=attrgetter("position"))

    def of(self, key: bytes) -> list[Item]:
        """Return the items whose key is an event's id, newest last."""
        items = [self.items[item_id] for item_id in self._ids.get(key, ())]
        return sorted(items, key=lambda each: each.at_ms)

    def before(self, item: Item) -> Item | None:
        """Return an open item of the same event with an earlier place in the log, or ``None``.

        The earlier item must be put back first, because an event counts at its first place.
        """
        if item.source is None:
            return None
        for each in (self.items[item_id] for item_id in self._ids[item.key]):
            if each.is_open and each.source is not None and each.source < item.source:
                return each
        return None

    def _add(self, record: SignedRecord) -> None:
        headers = {name: _text(value) for name, value in record.headers}
        new = _item(record, headers)
        known = self.items.get(new.id)
        put_back = _put_back(headers)
        if put_back is None:
            if known is not None:
                new = msgspec.structs.replace(
                    new, kept=known.kept, at_ms=known.at_ms, times=known.times + 1
                )
            self.items[new.id] = new
            self._ids.setdefault(new.key, set()).add(new.id)
        elif known is not None and put_back.to.partition("/")[0] in self._ways_back:
            self.items[new.id] = msgspec.structs.replace(known, put_back=put_back)


def judge_logged(
    item: Item,
    kept: bytes,
    record: SignedRecord | None,
    reading: Reading,
    trust: Trust | None = None,
) -> Event | Refusal:
    """Judge a rejected record of the log again.

    ``kept`` is the value of the item's record in ``plexy.rejected``, and ``record`` is the rejected
    record in the log. ``trust`` is ``None`` if the workers check no signatures.

    Only an event that was rejected for its data can be put back without a rebuild, because the
    workers recorded the event's id when they rejected it. If a record had no good signature, or no
    readable id, they recorded no id. If such a record had counted at its place, the workers would
    have judged later records of the same id differently.
    """
    if item.reason in _DECISIONS:
        return Refusal(f"this was a decision: {_DECISIONS[Reason(item.reason)]}")
    if record is None or not _holds(item, kept, record.value or b""):
        return Refusal(f"the log does not have these bytes at {item.source}")
    result = deduplicate([record], {}, reading, trust=trust)
    for rejected in result.rejected:
        return Refusal(_still(rejected.rejection))
    was_unsigned = item.reason == Reason.SIGNATURE_REFUSED
    if was_unsigned or item.key == key_without_id(record.value or b""):
        return Refusal(
            "it would be accepted as an event now, but the workers did not record its id when they "
            "rejected it: it will count after `plexy-ledger rebuild` folds the log from scratch"
        )
    for event in result.events:
        return event
    return Refusal("events of its type are kept, but not folded")


def _holds(item: Item, kept: bytes, body: bytes) -> bool:
    """Return whether a body has the rejected bytes."""
    return item.unkept.describes(body) if item.unkept else body == kept


def judge_delivery(record: SignedRecord, trust: Trust | None) -> Envelope | Refusal:
    """Judge again a delivery that ingress refused; if ``trust`` is ``None``, check no signature.

    The time in the signature is compared with the time at which the delivery arrived.
    """
    fault = trust.fault(record) if trust else None
    if fault is not None:
        return Refusal(f"its signature is not good: {fault}")
    envelope = read_envelope(record)
    return Refusal(_still(envelope)) if isinstance(envelope, Rejection) else envelope


def _still(rejection: Rejection) -> str:
    return f"it is still rejected: {rejection.reason}: {rejection.detail}"


def _text(header: bytes | None) -> str:
    """Return a header as text; a stranger's header may be of any length, or have no value."""
    return (header or b"")[:_MAX_HEADER_BYTES].decode(errors="replace")


def _item(record: SignedRecord, headers: dict[str, str]) -> Item:
    origin = headers.get("source-topic", _UNKNOWN)
    partition, offset = headers.get("source-partition", ""), headers.get("source-offset", "")
    source = None
    if is_number(partition) and is_number(offset):
        source = Source(origin, int(partition), int(offset))
    # A repeated delivery has the same bytes, and is the same item.
    digest = sha256(record.value or b"").hexdigest()[:_ID_DIGITS]
    return Item(
        id=str(source) if source else f"{origin}/{digest}",
        origin=origin,
        source=source,
        reason=headers.get("reason", _UNKNOWN),
        detail=headers.get("detail", ""),
        key=(record.key or b"")[:MAX_ID_BYTES],
        kept=(record.partition, record.offset),
        at_ms=record.timestamp,
        unkept=unkept(headers),
    )


def _put_back(headers: dict[str, str]) -> PutBack | None:
    at_ms = headers.get("put-back-at-ms", "")
    if not is_number(at_ms):
        return None
    return PutBack(headers.get("put-back-to", ""), int(at_ms), "corrected" in headers)


def is_delivery(item: Item) -> bool:
    """Return whether an item is a delivery that ingress refused, and that the log never had."""
    return item.source is None and item.origin == HTTP
