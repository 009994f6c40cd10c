"""Proofs: a proof is one file with which anybody can check an order, without the ledger itself.

``make`` turns the log's records of an order into a ``Proof``, and ``check`` returns the faults of
a proof. A check needs only the proof and the endpoint's secrets.

A proof shows that every signature and every sum is right, and that the order follows from its
events. It can't show that no event is left out: for that, ``plexy-ledger verify`` reads the whole
log.
"""

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence
from functools import partial
from hashlib import blake2b
from itertools import count, islice, permutations
from typing import Final

import msgspec

from ledger.dialects import is_bearer
from ledger.events import Event
from ledger.journal import PLEXY, Entry, balances
from ledger.notes import Note
from ledger.orders import OrderDocument
from ledger.records import Place, SignedRecord
from ledger.trust import Trust
from ledger.verification.fields import unlike
from ledger.verification.history import (
    GOOD,
    Rules,
    Step,
    facts_of,
    order_of,
    payments_of,
    signature_of,
    steps,
)

FORMAT: Final = "plexy-ledger-proof/2"
# Six events have 720 sequences. For more events, fewer sequences are drawn, so that the check of a
# large order takes about a second.
_MOST_SEQUENCES: Final = 720
_FEWEST_SEQUENCES: Final = 5
_FOLDED_EVENTS: Final = 20_000


class LoggedRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An unchanged record of the log.

    In JSON, bytes are base64; the timestamp is in Unix milliseconds.
    """

    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]

    @classmethod
    def of(cls, record: SignedRecord) -> "LoggedRecord":
        """Copy a consumer's record."""
        return cls(
            partition=record.partition,
            offset=record.offset,
            timestamp=record.timestamp,
            key=record.key,
            value=record.value,
            headers=tuple((name, value) for name, value in record.headers),
        )


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """An order, and all data from which it follows.

    ``records`` are all deliveries of the order's events, including the deliveries about payments
    that have moved away. ``rules`` are the settings of the fold, ``rules_digest`` is the digest of
    their rule set, and ``steps`` has the state of the order after each delivery. ``order`` is the
    final state, ``None`` if all payments have moved away.
    """

    format: str
    order_id: str
    rules: Rules
    rules_digest: str
    records: tuple[LoggedRecord, ...]
    steps: tuple[Step, ...]
    order: OrderDocument | None


class ProofCheck(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a check; ``faults`` is empty if the proof is right.

    ``signatures`` is the number of good signatures, ``None`` if no signature was checked.
    ``bearer`` is the number of deliveries that were authenticated by a token instead of a
    signature. ``sequences`` is the number of sequences in which the events were folded.
    """

    faults: tuple[str, ...]
    deliveries: int
    events: int
    signatures: int | None
    bearer: int
    sequences: int


def make(
    records: Sequence[SignedRecord], rules: Rules, order_id: str, trust: Trust | None = None
) -> Proof:
    """Return the proof of an order from the deliveries of its events."""
    kept = tuple(
        LoggedRecord.of(each) for each in sorted(records, key=lambda r: (r.partition, r.offset))
    )
    return Proof(
        format=FORMAT,
        order_id=order_id,
        rules=rules,
        rules_digest=rules.reading.rules.digest,
        records=kept,
        steps=tuple(steps(kept, rules, order_id, trust)),
        order=order_of(facts_of(kept, rules, trust), order_id),
    )


def check(
    proof: Proof,
    trust: Trust | None,
    rules: Rules | None = None,
    sequences: int | None = None,
    heard: Callable[[int], None] = lambda _sequences: None,
) -> ProofCheck:
    """Check a whole proof; if ``trust`` is ``None``, no signature is checked.

    ``rules`` are the rules of this ledger. The proof must have the same rules, because other rules
    give the deliveries a different meaning. The events are folded in up to ``sequences`` further
    sequences, each of which repeats some events; ``usual_sequences`` returns the default.
    ``heard`` is called with 1 for each sequence.
    """
    faults = list(_place_faults(proof))
    if proof.rules_digest != proof.rules.reading.rules.digest:
        faults.append(
            f"the proof states {proof.rules_digest!r:.80} as the digest of its rules, but their "
            f"digest is {proof.rules.reading.rules.digest}"
        )
    if proof.rules != (rules or Rules()):
        faults.append(
            f"the proof was made with rules that differ from this ledger's: {_rules(proof.rules)}, "
            f"instead of {_rules(rules or Rules())}"
        )
    signature_faults = list(_signature_faults(proof, trust))
    folded_once = facts_of(proof.records, proof.rules, trust)
    order = order_of(folded_once, proof.order_id)
    events = [fact for fact in folded_once if isinstance(fact, Event)]
    # If a forgotten event id was used again, its first event counts, whatever the content.
    facts = list({_identity(each): each for each in reversed(folded_once)}.values())
    if order != proof.order:
        faults.append(f"the order does not follow from these events: {_unlike(proof.order, order)}")
    told = tuple(steps(proof.records, proof.rules, proof.order_id, trust))
    faults += _step_faults(proof.steps, told)
    faults += _sum_faults(told, order, payments_of(folded_once, proof.order_id), proof.order_id)
    folded = 0
    for sequence in islice(_sequences(facts), sequences or usual_sequences(proof)):
        folded += 1
        heard(1)
        if order_of(sequence, proof.order_id) != order:
            names = ", ".join(fact.event_id for fact in sequence)
            faults.append(f"another sequence of the events produces another state: {names:.500}")
            break
    bearer = sum(is_bearer(each.headers) for each in proof.records)
    return ProofCheck(
        faults=(*signature_faults, *faults),
        deliveries=len(proof.records),
        events=len(events),
        signatures=_good_signatures(proof, trust) if trust else None,
        bearer=bearer,
        sequences=folded,
    )


def usual_sequences(proof: Proof) -> int:
    """Return how many sequences a check folds by default; fewer for an order with many events."""
    fitting = _FOLDED_EVENTS // max(len(proof.records), 1)
    return min(max(fitting, _FEWEST_SEQUENCES), _MOST_SEQUENCES)


def _identity(fact: Event | Note) -> Hashable:
    return fact if isinstance(fact, Note) else (fact.payment_id, fact.event_id)


def _rules(rules: Rules) -> str:
    fields, types = rules.reading.fields, rules.reading.rules
    return (
        f"rules {types.name}, {types.digest}; "
        f"order in {','.join(fields.order)}; payment in {','.join(fields.payment)}; "
        f"forgotten after {rules.forget_after_ms} ms"
        f"{'; only signed deliveries count' if rules.signed_only else ''}"
    )


def _place_faults(proof: Proof) -> Iterator[str]:
    if proof.format != FORMAT:
        yield f"the format is {proof.format!r:.80}, expected {FORMAT!r}"
    if not proof.records:
        yield "the proof holds no delivery, so it proves nothing"
    places = Counter(Place(each.partition, each.offset) for each in proof.records)
    for place, number in places.items():
        if number > 1:
            yield f"{number} records are at partition {place.partition}, offset {place.offset}"


def _signature_faults(proof: Proof, trust: Trust | None) -> Iterator[str]:
    for record in proof.records if trust else ():
        fault = trust.fault(record) if trust else None
        if fault is not None:
            key = (record.key or b"").decode(errors="replace")
            yield (
                f"the signature of {key!r:.80}, at partition {record.partition}, offset "
                f"{record.offset}, is not good: {fault}"
            )


def _good_signatures(proof: Proof, trust: Trust) -> int:
    return sum(signature_of(record, trust) == GOOD for record in proof.records)


def _step_faults(stated: Sequence[Step], follow: Sequence[Step]) -> Iterator[str]:
    if len(stated) != len(follow):
        yield f"the proof states {len(stated)} steps for {len(follow)} deliveries"
        return
    for number, (one, other) in enumerate(zip(stated, follow, strict=True), 1):
        if one != other:
            yield f"step {number} ({other.event_id!r:.80}) does not follow: {_unlike(one, other)}"


def _sum_faults(
    told: Iterable[Step],
    order: OrderDocument | None,
    payments: Collection[str],
    order_id: str,
) -> Iterator[str]:
    """Compare the journal with the order: the balance at Plexy must equal the order's net.

    ``payments`` are the ids of the order's payments; the document of a large order lists only two.
    """
    entries: dict[str, Entry] = {
        entry.entry_id: entry
        for step in told
        for entry in step.entries
        if entry.payment_id in payments
    }
    held = {c: amount for (account, c), amount in balances(entries).items() if account == PLEXY}
    net = {currency: totals.net for currency, totals in order.totals.items()} if order else {}
    for currency in sorted(held.keys() | net.keys()):
        if held.get(currency, 0) != net.get(currency, 0):
            yield (
                f"the journal has {held.get(currency, 0)} {currency} of order {order_id!r:.80} "
                f"with Plexy, but the order has a net of {net.get(currency, 0)}"
            )


def _sequences(events: Sequence[Event | Note]) -> Iterator[list[Event | Note]]:
    """Yield sequences that repeat some of the events; for few events, yield all sequences."""
    few = len(events) <= 6  # noqa: PLR2004 - 720 sequences
    orders: Iterable[Sequence[Event | Note]] = permutations(events) if few else _shuffled(events)
    for number, order in enumerate(orders):
        again = [event for event in order if _digest(number, event)[0] % 2]
        yield [*order[: number % 5], *again, *order[number % 5 :]]


def _shuffled(events: Sequence[Event | Note]) -> Iterator[Sequence[Event | Note]]:
    """Yield shuffled sequences forever.

    They are the same in every check, so a failure can be reproduced.
    """
    for number in count():
        yield sorted(events, key=partial(_digest, number))


def _digest(number: int, event: Event | Note) -> bytes:
    return blake2b(f"{number} {event.event_id}".encode()).digest()


def _unlike(stated: OrderDocument | Step | None, follows: OrderDocument | Step | None) -> str:
    if stated is None or follows is None:
        return "no order is stated" if stated is None else "an order is stated, but none follows"
    return unlike(stated, follows, "{} is stated, {} follows".format)
