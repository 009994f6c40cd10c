"""Puts the first attempts at deliveries into a sequence; some are late, repeated or badly signed.

The seed, the number of events, the rules and the dialects decide the deliveries and the bytes of
each body, whatever ingress answers. A *story* consists of the events of one order. Memory holds
only the waiting deliveries of stories that have begun.
"""

import heapq
import json
from collections.abc import Iterator
from random import Random
from typing import Any, Final

import msgspec

from cli.send import encode
from cli.simulate.oracle import identity
from cli.simulate.stories import SDK, Dialects, Event, Stories

# The ranges of the signer's clock error, as multiples of the tolerance. In the first range, the
# clock is right. The second range ends below the tolerance, because the delivery also takes time.
# The third range is beyond the tolerance.
_SKEWS: Final = ((0.0, 0.0), (0.0, 0.8), (1.5, 20.0))
_SKEWS_PERCENT: Final = (70, 28, 2)


class ScheduledDelivery(msgspec.Struct, frozen=True):
    """One delivery, which is attempted until it is acknowledged.

    ``events_before`` is the number of events that have an earlier delivery. ``skew`` is the error
    of the signer's clock at the first attempt, as a multiple of the tolerance. A notification of
    the Pay API is not signed. Instead, if its ``skew`` is beyond the tolerance, its first attempt
    has a wrong token.
    """

    number: int
    event_id: str
    is_pay: bool
    body: bytes
    events_before: int
    skew: float


def deliveries(
    seed: int, events: int, rules: str = "seed", dialects: Dialects = SDK
) -> Iterator[ScheduledDelivery]:
    """Yield the deliveries of ``events`` events and their duplicates, in the sending sequence."""
    random = Random(f"schedule {seed}-{events}")
    stories = iter(Stories(seed, events, rules, dialects))
    begun: set[str] = set()
    for number, event in enumerate(_in_order(stories, events, random)):
        events_before, event_id = len(begun), identity(event)
        begun.add(event_id)
        body = _serialised(event, random)
        yield ScheduledDelivery(
            number, event_id, "name" in event, body, events_before, _skew(random)
        )


def _in_order(stories: Iterator[list[Event]], events: int, random: Random) -> Iterator[Event]:
    """Yield the events of several orders in turn; some events are late, and some are repeated."""
    waiting: list[tuple[float, int, Event]] = []
    taken = entered = 0
    while taken < events:
        story = next(stories)[: events - taken]
        pause = random.choice((0, 1, 5, 50))
        for n, event in enumerate(story):
            for place in _places(taken + n * pause, random):
                heapq.heappush(waiting, (place, entered, event))
                entered += 1
        taken += len(story)
        # The events of later stories have no place before `taken`. So the waiting events before
        # `taken` can be sent.
        while waiting and waiting[0][0] < taken:
            yield heapq.heappop(waiting)[2]
    while waiting:
        yield heapq.heappop(waiting)[2]


def _places(place: float, random: Random) -> Iterator[float]:
    """Yield, for each delivery of one event, the delivery's place in the sending sequence."""
    times = random.choices((1, 2, 4), weights=(88, 10, 2))[0]
    for _ in range(times):
        reach = random.choices((0.0, 10.0, 500.0), weights=(65, 25, 10))[0]
        yield place + random.uniform(0, reach)


def _serialised(event: Event, random: Random) -> bytes:
    """Return one of several serialisations: a sender may serialise a duplicate differently."""
    match random.randrange(4):
        case 0:
            return json.dumps(_shuffled(event, random), ensure_ascii=True).encode()
        case 1:
            return json.dumps(_shuffled(event, random), ensure_ascii=False, indent=1).encode()
        case _:
            return encode(event)


def _shuffled(value: Any, random: Random) -> Any:
    """Return the same JSON value with its fields in a random sequence."""
    if not isinstance(value, dict):
        return value
    return {name: _shuffled(value[name], random) for name in random.sample(list(value), len(value))}


def _skew(random: Random) -> float:
    least, most = random.choices(_SKEWS, _SKEWS_PERCENT)[0]
    return random.choice((-1, 1)) * random.uniform(least, most)
