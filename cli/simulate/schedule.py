"""Orders the first attempts at deliveries: some are late, repeated, or signed with a wrong time.

A seed and the number of events decide the deliveries and the bytes of each body, whatever ingress
answers. A story has the events of one order. Memory holds only the waiting deliveries of stories
that have begun.
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

# The ranges of the signer's clock error, in parts of the tolerance: no error, errors well within
# the tolerance (the delivery takes time too), and errors beyond the tolerance.
_SKEWS: Final = ((0.0, 0.0), (0.0, 0.8), (1.5, 20.0))
_SKEWS_PERCENT: Final = (70, 28, 2)


class ScheduledDelivery(msgspec.Struct, frozen=True):
    """One delivery, which is attempted until it is acknowledged.

    ``events_before`` is the number of events that have an earlier delivery. ``skew`` is the error
    of the signer's clock at the first attempt, in parts of the tolerance. At that attempt, a
    notification of the Pay API, which is not signed, has a wrong token if ``skew`` is beyond the
    tolerance.
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
    """Yield the deliveries of ``events`` events and their duplicates, in order of sending."""
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
    """Yield the events of several orders in turn, some of them late, and some more than once."""
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
        # No later story has an event before its own start, so earlier events can be sent.
        while waiting and waiting[0][0] < taken:
            yield heapq.heappop(waiting)[2]
    while waiting:
        yield heapq.heappop(waiting)[2]


def _places(place: float, random: Random) -> Iterator[float]:
    """Yield, for each delivery of one event, the delivery's place in the sending order."""
    times = random.choices((1, 2, 4), weights=(88, 10, 2))[0]
    for _ in range(times):
        reach = random.choices((0.0, 10.0, 500.0), weights=(65, 25, 10))[0]
        yield place + random.uniform(0, reach)


def _serialised(event: Event, random: Random) -> bytes:
    """Return one of several serialisations, as a sender may serialise a duplicate differently."""
    match random.randrange(4):
        case 0:
            return json.dumps(_shuffled(event, random), ensure_ascii=True).encode()
        case 1:
            return json.dumps(_shuffled(event, random), ensure_ascii=False, indent=1).encode()
        case _:
            return encode(event)


def _shuffled(value: Any, random: Random) -> Any:
    """Return the same JSON value with the fields in a different order."""
    if not isinstance(value, dict):
        return value
    return {name: _shuffled(value[name], random) for name in random.sample(list(value), len(value))}


def _skew(random: Random) -> float:
    least, most = random.choices(_SKEWS, _SKEWS_PERCENT)[0]
    return random.choice((-1, 1)) * random.uniform(least, most)
