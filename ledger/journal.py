"""The journal: balanced double-entry postings, one entry for each movement of money.

Input: the facts on which a movement rests now (its standing facts, see ``ledger.standing``), and
the facts on which it rested before. Output: the entries that post the difference. A posted entry is
never changed: a correction is a reversal and a new entry. An entry stands if it is posted and not
reversed. The standing entry of a movement is always built from the movement's standing facts, so
the entry depends only on the facts. Invariant: every entry sums to zero in each currency; an
unbalanced entry can't be constructed.

movement            debit                  credit      facts
success, capture    plexy                  sales       the fact
refund              refunds                plexy       the fact
replacement         sales                  plexy       the success and the first capture
refund_reversal     plexy                  refunds     the reversal and the refund
dispute             disputed               plexy       the first fact and the fact with the amount
dispute_outcome     plexy, or chargebacks  disputed    the outcome, the previous outcome (if any)
                                                       and the fact with the amount

A replacement takes back the success of a payment that also has captures. If a dispute has an
earlier outcome, a new outcome credits the account that the earlier outcome debited.
"""

from collections.abc import Mapping
from operator import attrgetter
from typing import Annotated, Final, Literal, assert_never
from urllib.parse import quote

import msgspec

from ledger.events import Event
from ledger.lifecycle import Kind
from ledger.money import MAX_AMOUNT_MINOR, Money
from ledger.published import Currency, Id, Position, UnixSeconds, meaning

PLEXY: Final = "assets:plexy"
SALES: Final = "income:sales"
REFUNDS: Final = "income:refunds"
DISPUTED: Final = "assets:disputed"
CHARGEBACKS: Final = "expenses:chargebacks"
ACCOUNTS: Final = (PLEXY, SALES, REFUNDS, DISPUTED, CHARGEBACKS)

Movement = Literal["capture", "replacement", "refund_reversal", "dispute", "dispute_outcome"]
"""The movements other than a success and a refund; the rule set ``SEED`` causes none of them."""

Facts = tuple[Event, ...]
"""The facts on which a movement rests; the movement's entry names the first fact as its event."""

_event_id_of: Final = attrgetter("event_id")


class UnbalancedEntryError(ValueError):
    """An entry's postings don't sum to zero in some currency: a bug in the fold, never bad data."""


class Posting(msgspec.Struct, frozen=True, gc=False):
    """One leg: ``amount`` is in minor units, positive for a debit, negative for a credit."""

    account: Annotated[str, meaning("the account's name", minLength=1, examples=[*ACCOUNTS])]
    amount: Annotated[
        int,
        meaning(
            "minor units: positive is a debit, negative a credit",
            minimum=-MAX_AMOUNT_MINOR,
            maximum=MAX_AMOUNT_MINOR,
        ),
    ]
    currency: Annotated[Currency, meaning("ISO 4217 code")]


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One immutable journal entry, which posts one movement or takes it back.

    ``event_id``, ``created`` (Unix seconds), ``partition`` and ``offset`` are those of the
    entry's first fact, even in a reversal; ``reverses`` names the entry that a reversal takes back.
    So the content of an entry depends only on its facts, and not on the order in which facts
    arrive.
    """

    entry_id: Annotated[
        str, meaning("the entry's id and its record's key; do not parse it", minLength=1)
    ]
    payment_id: Annotated[Id, meaning("the payment that it is about")]
    refund_id: Annotated[Id | None, meaning("the refund that it is about; null for a payment")]
    event_id: Annotated[Id, meaning("the event that it posts or takes back")]
    created: Annotated[UnixSeconds, meaning("when that event was created")]
    partition: Annotated[Position, meaning("that event's partition of `plexy.webhooks`")]
    offset: Annotated[Position, meaning("that event's offset in the partition")]
    reverses: Annotated[
        str | None, meaning("the entry_id that it takes back; null unless it is a reversal")
    ]
    postings: Annotated[
        tuple[Posting, ...],
        meaning("its legs; they sum to zero in each currency", minItems=2),
    ]
    movement: Annotated[
        Movement | None, meaning("what it posts; absent for a success and for a refund")
    ] = None
    capture_id: Annotated[Id | None, meaning("the capture that it is about, if any")] = None
    dispute_id: Annotated[Id | None, meaning("the dispute that it is about, if any")] = None
    other_event_ids: Annotated[
        tuple[Id, ...], meaning("the other events that it rests on, if any")
    ] = ()

    def __post_init__(self) -> None:
        postings = self.postings
        # Nearly every entry has two opposite legs, so its sums need not be computed.
        if len(postings) == 2:  # noqa: PLR2004
            one, other = postings
            if one.amount == -other.amount and one.currency == other.currency:
                return
        sums: dict[str, int] = {}
        for posting in postings:
            sums[posting.currency] = sums.get(posting.currency, 0) + posting.amount
        if not self.postings or any(sums.values()):
            raise UnbalancedEntryError(f"entry {self.entry_id} does not balance: {sums}")


class Subject(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The subject of an entry: a payment's success, one of its refunds, or another movement.

    A subject has at most one standing entry at a time. ``item_id`` is the id of the capture or the
    dispute. For a dispute's outcome, ``event_id`` is the id of the event that states the outcome.
    Each outcome moves the amount again, so each outcome is a subject of its own.
    """

    payment_id: str
    refund_id: str | None = None
    movement: Movement | None = None
    item_id: str | None = None
    event_id: str | None = None

    def entry_id(self, event_id: str, *others: str) -> str:
        """Return the id of these events' entry; ids are quoted, because they may contain slashes.

        >>> Subject("pay_1").entry_id("evt_1"), Subject("pay/1", "re_1").entry_id("evt_2")
        ('payment/pay_1/evt_1', 'refund/pay%2F1/re_1/evt_2')
        >>> Subject("pay_1", None, "dispute", "dp_1").entry_id("evt_3", "evt_4")
        'dispute/pay_1/dp_1/evt_3/evt_4'
        """
        payment, event = _quoted(self.payment_id), _quoted(event_id)
        if self.movement is None:
            if self.refund_id is None:
                return f"payment/{payment}/{event}"
            return f"refund/{payment}/{_quoted(self.refund_id)}/{event}"
        item = self.refund_id or self.item_id
        ids = (self.payment_id, *([item] if item else []), event_id, *others)
        return "/".join([self.movement, *map(_quoted, ids)])


def subject_of_entry(entry: Entry) -> Subject:
    """Return the subject of an entry."""
    item_id = entry.capture_id or entry.dispute_id
    event_id = entry.event_id if entry.movement == "dispute_outcome" else None
    return Subject(entry.payment_id, entry.refund_id, entry.movement, item_id, event_id)


def post(subject: Subject, standing: Facts | None, before: Facts | None) -> list[Entry]:
    """Return the entries to post so that ``standing`` are the facts of the subject's entry.

    There are at most two entries. ``before`` are the facts that stood until now, if any. A
    correction is posted even if the old and the new facts have the same money. So the order in
    which facts arrive does not decide which entry stands.
    """
    if before is None:
        return [] if standing is None else [entry_of(subject, standing)]
    if standing is None:
        return [reversal_of(subject, before)]
    if ids_of(standing) == ids_of(before):
        return []
    return [reversal_of(subject, before), entry_of(subject, standing)]


def ids_of(facts: Facts) -> tuple[str, ...]:
    """Return the event ids of facts."""
    return tuple(map(_event_id_of, facts))


def balances(entries: Mapping[str, Entry]) -> dict[tuple[str, str], int]:
    """Sum entries by account and currency, in minor units."""
    sums: dict[tuple[str, str], int] = {}
    for entry in entries.values():
        for posting in entry.postings:
            key = (posting.account, posting.currency)
            sums[key] = sums.get(key, 0) + posting.amount
    return sums


def entry_of(subject: Subject, facts: Facts) -> Entry:
    """Return the entry that posts a movement."""
    return _build(_entry_id(subject, facts), subject, facts, 1, None)


def reversal_of(subject: Subject, facts: Facts) -> Entry:
    """Return the reversal of a movement's entry."""
    reversed_id = _entry_id(subject, facts)
    return _build(f"{reversed_id}/reversal", subject, facts, -1, reversed_id)


def _entry_id(subject: Subject, facts: Facts) -> str:
    if len(facts) == 1:
        return subject.entry_id(facts[0].event_id)
    return subject.entry_id(*ids_of(facts))


def _quoted(text: str) -> str:
    # Plexy's own ids have only letters, digits and underscores; this check is faster than quote().
    return text if text.isascii() and text.isidentifier() else quote(text, safe="")


def _build(entry_id: str, subject: Subject, facts: Facts, sign: int, reverses: str | None) -> Entry:
    fact, movement = facts[0], subject.movement
    debit, credit, money = _transfer(subject, facts)
    amount, currency = sign * money.amount_minor, money.currency
    posted = Entry(
        entry_id=entry_id,
        payment_id=subject.payment_id,
        refund_id=subject.refund_id,
        event_id=fact.event_id,
        created=fact.created,
        partition=fact.partition,
        offset=fact.offset,
        reverses=reverses,
        postings=(Posting(debit, amount, currency), Posting(credit, -amount, currency)),
    )
    if movement is None:
        return posted
    return msgspec.structs.replace(
        posted,
        movement=movement,
        capture_id=subject.item_id if movement == "capture" else None,
        dispute_id=None if movement == "capture" else subject.item_id,
        other_event_ids=ids_of(facts[1:]),
    )


def _transfer(subject: Subject, facts: Facts) -> tuple[str, str, Money]:
    """Return the account to debit, the account to credit, and the money of a movement."""
    movement = subject.movement
    if movement is None or movement == "capture":
        if subject.refund_id is None:
            return PLEXY, SALES, facts[0].moved
        return REFUNDS, PLEXY, facts[0].moved
    match movement:
        case "replacement":
            return SALES, PLEXY, _of_kind(Kind.SUCCEEDED, facts).moved
        case "refund_reversal":
            return PLEXY, REFUNDS, _of_kind(Kind.REFUNDED, facts).moved
        case "dispute":
            return DISPUTED, PLEXY, facts[-1].moved
        case "dispute_outcome":
            # Without an earlier outcome there are two facts: the outcome, and the fact with the
            # amount.
            has_earlier = len(facts) > 2  # noqa: PLR2004
            before = _account_after(facts[1]) if has_earlier else DISPUTED
            return _account_after(facts[0]), before, facts[-1].moved
        case _:
            assert_never(movement)


def _of_kind(kind: Kind, facts: Facts) -> Event:
    return next(fact for fact in facts if fact.kind is kind)


def _account_after(outcome: Event) -> str:
    return CHARGEBACKS if outcome.kind is Kind.DISPUTE_LOST else PLEXY
