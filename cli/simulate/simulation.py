"""A run of the virtual Plexy: every delivery is attempted until it is acknowledged.

In: a seed, a number of events, and how to send. Out: which bodies were acknowledged, and which
events are still owed. Never: a delivery that is given up, or called done on less than a 2xx; what
was not acknowledged may be in the log all the same, and stays owed until it is.
"""

import asyncio
import contextlib
import heapq
import time
from collections import Counter
from collections.abc import Callable, Iterator

import aiohttp
import msgspec

from cli.run.local import until_stopped
from cli.send import Answer
from cli.simulate import oracle
from cli.simulate.delivery import NoAnswer, SenderOptions, client, headers, post
from cli.simulate.latency import Attempt, Latencies
from cli.simulate.schedule import ScheduledDelivery, deliveries


class Tally(msgspec.Struct):
    """Counts of a run. ``sent`` are deliveries attempted at least once, duplicates among them.

    ``refused`` is by status and code, ``unanswered`` by what went wrong.
    """

    sent: int = 0
    attempts: int = 0
    acknowledged: int = 0
    refused: Counter[str] = msgspec.field(default_factory=Counter)
    unanswered: Counter[str] = msgspec.field(default_factory=Counter)

    @property
    def retries(self) -> int:
        """How many attempts were not the first of their delivery."""
        return self.attempts - self.sent


class _Due(msgspec.Struct, frozen=True, order=True):
    """An attempt, and when it is to be made, on the event loop's clock."""

    at_s: float
    number: int
    failures: int
    delivery: ScheduledDelivery


class Simulation:
    """One run. ``acknowledged`` has, by event id, each body that was answered with a 2xx.

    ``owed`` has a body of each event that was attempted and never acknowledged. Both can be read
    while it runs. ``hear`` is told of each attempt when it is over.
    """

    def __init__(
        self,
        seed: int,
        events: int,
        options: SenderOptions,
        hear: Callable[[Attempt], None] = lambda _attempt: None,
    ) -> None:
        self.seed = seed
        self.events = events
        self.options = options
        self.acknowledged: dict[str, list[bytes]] = {}
        self.owed: dict[str, bytes] = {}
        self.tally = Tally()
        self.latencies = Latencies()
        self._hear = hear
        self.took_s = 0.0
        self._fresh: Iterator[ScheduledDelivery] = deliveries(seed, events)
        self._began_s = 0.0
        self._upcoming: _Due | None = None
        self._retries: list[_Due] = []
        self._in_flight = 0
        self._events_begun = 0
        self._changed = asyncio.Event()
        self._slots = asyncio.Semaphore(options.concurrency)

    async def run(self, stop: asyncio.Event | None = None) -> None:
        """Send until everything is acknowledged, or until ``stop``; call it once.

        At a stop the attempts in flight are abandoned, so that their events stay owed.
        """
        self._began_s = asyncio.get_running_loop().time()
        began_s = time.monotonic()
        try:
            async with client(self.options) as session:
                await until_stopped(self._send(session), stop or asyncio.Event())
        finally:
            self.took_s = time.monotonic() - began_s

    def finish(self) -> None:
        """Send nothing new any more; ``run`` returns when all that was begun is acknowledged."""
        self._fresh = iter(())
        self._upcoming = None
        self._changed.set()

    def orders(self) -> dict[str, oracle.Order | None]:
        """Return what must come of the acknowledged events, but for the undecided orders."""
        undecided = self.undecided()
        foretold = oracle.orders(self._acknowledged_bodies())
        return {name: order for name, order in foretold.items() if name not in undecided}

    def undecided(self) -> set[str]:
        """Return the orders that depend on whether an event that is still owed was kept."""
        if not self.owed:
            return set()
        return oracle.touched([*self._acknowledged_bodies(), *self.owed.values()], self.owed)

    def _acknowledged_bodies(self) -> Iterator[bytes]:
        # All bodies of an event have the same content.
        return (bodies[0] for bodies in self.acknowledged.values())

    async def _send(self, session: aiohttp.ClientSession) -> None:
        async with asyncio.TaskGroup() as attempts:
            while True:
                await self._slots.acquire()
                due = await self._next()
                if due is None:
                    return
                self._in_flight += 1
                attempts.create_task(self._attempt(session, due))

    async def _next(self) -> _Due | None:
        """Wait for the next attempt to be due; ``None`` when none will ever be."""
        loop = asyncio.get_running_loop()
        while (due := self._take(loop.time())) is None:
            waiting = [each.at_s for each in (*self._retries[:1], self._upcoming) if each]
            if not waiting and not self._in_flight:
                return None
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(min(waiting, default=None)):
                    await self._changed.wait()
        return due

    def _take(self, now_s: float) -> _Due | None:
        """Return an attempt that is due, a retry first."""
        if self._retries and self._retries[0].at_s <= now_s:
            return heapq.heappop(self._retries)
        if self._upcoming is None and (delivery := next(self._fresh, None)):
            rate = self.options.rate_per_s
            at_s = self._began_s + delivery.number / rate if rate else now_s
            self._upcoming = _Due(at_s, delivery.number, 0, delivery)
        if self._upcoming is None or self._upcoming.at_s > now_s:
            return None
        due, self._upcoming = self._upcoming, None
        return due

    async def _attempt(self, session: aiohttp.ClientSession, due: _Due) -> None:
        delivery, is_retry = due.delivery, due.failures > 0
        self._note_attempt(delivery, is_retry=is_retry)
        signed = headers(delivery, self.options, secret=self._secret(), is_retry=is_retry)
        sent_s = time.monotonic()
        answer = await post(session, self.options.url, delivery.body, signed)
        self._note_time(Attempt(sent_s, time.monotonic() - sent_s, _outcome(answer)))
        if isinstance(answer, Answer) and answer.accepted:
            self._note_acknowledgement(delivery)
        else:
            self._note_failure(answer)
            failures = due.failures + 1
            at_s = asyncio.get_running_loop().time() + self.options.wait_s(failures)
            heapq.heappush(self._retries, _Due(at_s, delivery.number, failures, delivery))
        self._in_flight -= 1
        self._slots.release()
        self._changed.set()

    def _secret(self) -> str:
        """Return what Plexy signs with now: each secret has its share of the run."""
        secrets = self.options.secrets
        share = self._events_begun * len(secrets) // self.events
        return secrets[min(share, len(secrets) - 1)]

    def _note_attempt(self, delivery: ScheduledDelivery, *, is_retry: bool) -> None:
        self.tally.attempts += 1
        if not is_retry:
            self.tally.sent += 1
            self._events_begun = max(self._events_begun, delivery.events_before)
        if delivery.event_id not in self.acknowledged:
            self.owed.setdefault(delivery.event_id, delivery.body)

    def _note_acknowledgement(self, delivery: ScheduledDelivery) -> None:
        self.tally.acknowledged += 1
        self.acknowledged.setdefault(delivery.event_id, []).append(delivery.body)
        self.owed.pop(delivery.event_id, None)

    def _note_failure(self, answer: Answer | NoAnswer) -> None:
        if isinstance(answer, NoAnswer):
            self.tally.unanswered[_outcome(answer)] += 1
        else:
            self.tally.refused[_outcome(answer)] += 1

    def _note_time(self, attempt: Attempt) -> None:
        self.latencies.note(attempt)
        self._hear(attempt)


def _outcome(answer: Answer | NoAnswer) -> str:
    """Name what came of an attempt: status and code, or what went wrong."""
    if isinstance(answer, NoAnswer):
        return answer.reason
    return f"{answer.status} {answer.code}".strip()
