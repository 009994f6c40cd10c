"""Limits the size of a payment: says which facts a payment keeps, and which are set aside.

Input: facts (events that count), in any order. Output: the kept facts, and the key of the first
fact that is set aside. A payment keeps its earliest facts, by time and then by event id, up to a
total size of ``MOST_FACT_BYTES``; every later fact is set aside. So the kept facts depend only on
the set of facts. Once a fact is set aside, all later facts are set aside too, and the payment never
keeps any of them again.
"""

from bisect import insort
from collections.abc import Mapping
from operator import attrgetter
from typing import Final

import msgspec

from ledger.events import Event

MOST_FACT_BYTES: Final = 128 * 1024
"""The maximum size of a payment's facts as JSON: some 900 facts with ids of Plexy's length."""

# A fact has five texts of at most 512 bytes, and JSON writes a byte as at most six bytes. So eight
# facts always fit, and nearly every payment has fewer. An earlier release may have written longer
# facts. Even then, a payment keeps eight facts, so that no payment is left without facts.
ALWAYS_FIT: Final = 8

FactKey = tuple[int, str]
"""The sort key of a fact: the time at which its event was created, then the event's id."""

key_of: Final = attrgetter("created", "event_id")
_ENCODER: Final = msgspec.json.Encoder()


class KeptFacts:
    """The facts that a payment keeps; ``first_aside`` is the key of the first fact set aside.

    The size of the facts is computed only if there are more than ``ALWAYS_FIT`` facts.
    """

    __slots__ = ("_bytes", "_keys", "facts", "first_aside")

    def __init__(self, facts: dict[str, Event], first_aside: FactKey | None) -> None:
        self.facts = facts
        self.first_aside = first_aside
        self._keys: list[FactKey] = []
        self._bytes = 0

    def add(self, fact: Event) -> list[Event]:
        """Add a new fact; return the facts to set aside, latest first.

        The new fact itself may be among them.
        """
        if self.first_aside is not None and key_of(fact) >= self.first_aside:
            return [fact]
        facts = self.facts
        facts[fact.event_id] = fact
        if len(facts) <= ALWAYS_FIT:
            return []
        if self._keys:
            insort(self._keys, key_of(fact))
            self._bytes += _size(fact)
        else:
            self._keys = sorted(map(key_of, facts.values()))
            self._bytes = sum(map(_size, facts.values()))
        aside: list[Event] = []
        while self._bytes > MOST_FACT_BYTES and len(facts) > ALWAYS_FIT:
            self.first_aside = self._keys.pop()
            aside.append(facts.pop(self.first_aside[1]))
            self._bytes -= _size(aside[-1])
        return aside


def kept_of(facts: Mapping[str, Event]) -> tuple[Mapping[str, Event], FactKey | None]:
    """Return the kept facts of a payment, and the key of the first fact that is set aside."""
    if len(facts) <= ALWAYS_FIT:
        return facts, None
    kept: dict[str, Event] = {}
    used = 0
    for number, fact in enumerate(sorted(facts.values(), key=key_of)):
        used += _size(fact)
        if used > MOST_FACT_BYTES and number >= ALWAYS_FIT:
            return kept, key_of(fact)
        kept[fact.event_id] = fact
    return facts, None


def _size(fact: Event) -> int:
    return len(_ENCODER.encode(fact))
