"""Runs the virtual Plexy: every delivery is attempted until a 2xx answer acknowledges it.

A run records the acknowledged bodies and the *owed* events. An owed event was attempted, but is not
acknowledged yet. It may be in the log, because an answer can get lost.
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
from cli.simulate.delivery import SenderOptions, Unanswered, client, headers, post
from cli.simulate.latency import Attempt, Latencies
from cli.simulate.schedule import ScheduledDelivery, deliveries
from ledger.pay import PayAmounts


class SendingTally(msgspec.Struct):
    """The counts of a run; ``sent`` counts each delivery once, however often it was attempted.

    A duplicate is a separate delivery. ``refused`` counts the refused attempts, by status and code.
    ``unanswered`` counts the attempts that got no answer, by the kind of network failure.
    """

    sent: int = 0
    attempts: int = 0
    acknowledged: int = 0
    refused: Counter[str] = msgspec.field(default_factory=Counter)
    unanswered: Counter[str] = msgspec.field(default_factory=Counter)

    @property
    def retries(self) -> int:
        """The number of attempts that were not the first attempt at their delivery."""
        return self.attempts - self.sent


class _Due(msgspec.Struct, frozen=True, order=True):
    """A future attempt, and its time on the event loop's clock."""

    at_s: float
    number: int
    failures: int
    delivery: ScheduledDelivery


class Simulation:
    """One run; ``acknowledged`` has each body that was answered with a 2xx, by event id.

    ``owed`` has one body of each event that was attempted but never acknowledged. Both attributes
    can be read during the run. ``heard`` receives each attempt after the attempt has ended.
    """

    def __init__(
        self,
        seed: int,
        events: int,
        options: SenderOptions,
        heard: Callable[[Attempt], None] = lambda _attempt: None,
    ) -> None:
        self.seed = seed
        self.events = events
        self.options = options
        self.acknowledged: dict[str, list[bytes]] = {}
        self.owed: dict[str, bytes] = {}
        self.tally = SendingTally()
        self.latencies = Latencies()
        self._heard = heard
        self.took_s = 0.0
        self._unsent: Iterator[ScheduledDelivery] = deliveries(
            seed, events, options.rules, options.dialects
        )
        self._began_s = 0.0
        self._upcoming: _Due | None = None
        self._retries: list[_Due] = []
        self._in_flight = 0
        self._events_begun = 0
        self._changed = asyncio.Event()
        self._slots = asyncio.Semaphore(options.concurrency)

    async def run(self, stop: asyncio.Event | None = None) -> None:
        """Send until everything is acknowledged, or until ``stop`` is set; call this only once.

        If ``stop`` is set, the current attempts are abandoned, and their events stay owed.
        """
        self._began_s = asyncio.get_running_loop().time()
        began_s = time.monotonic()
        try:
            async with client(self.options) as session:
                await until_stopped(self._send(session), stop or asyncio.Event())
        finally:
            self.took_s = time.monotonic() - began_s

    def finish(self) -> None:
        """Begin no more deliveries; ``run`` returns when all begun deliveries are acknowledged."""
        self._unsent = iter(())
        self._upcoming = None
        self._changed.set()

    def orders(self) -> dict[str, oracle.CheckedOrder | None]:
        """Return the orders that the acknowledged events must produce, except undecided orders."""
        undecided = self.undecided()
        bodies = self._acknowledged_bodies()
        foretold = oracle.orders(bodies, self.options.rules, in_major=self._in_major)
        return {name: order for name, order in foretold.items() if name not in undecided}

    def undecided(self) -> set[str]:
        """Return the orders whose state depends on whether an owed event is in the log."""
        if not self.owed:
            return set()
        bodies = [*self._acknowledged_bodies(), *self.owed.values()]
        return oracle.touched(bodies, self.owed, self.options.rules, in_major=self._in_major)

    @property
    def _in_major(self) -> bool:
        return self.options.dialects.pay is PayAmounts.MAJOR

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
        """Wait until the next attempt is due; ``None`` if no attempt is left."""
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
        """Return an attempt that is due, or ``None``; retries come before first attempts."""
        if self._retries and self._retries[0].at_s <= now_s:
            return heapq.heappop(self._retries)
        if self._upcoming is None and (delivery := next(self._unsent, None)):
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
        options = self.options
        url, secrets = options.url, options.secrets
        if delivery.is_pay:
            url, secrets = options.pay_url, options.tokens
        signed = headers(delivery, options, secret=self._now_of(secrets), is_retry=is_retry)
        sent_s = time.monotonic()
        answer = await post(session, url, delivery.body, signed)
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

    def _now_of(self, secrets: tuple[str, ...]) -> str:
        """Return the current secret or token; each is used for an equal share of the run."""
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

    def _note_failure(self, answer: Answer | Unanswered) -> None:
        if isinstance(answer, Unanswered):
            self.tally.unanswered[_outcome(answer)] += 1
        else:
            self.tally.refused[_outcome(answer)] += 1

    def _note_time(self, attempt: Attempt) -> None:
        self.latencies.note(attempt)
        self._heard(attempt)


def _outcome(answer: Answer | Unanswered) -> str:
    """Return an attempt's outcome: the status with its code, or the network failure."""
    if isinstance(answer, Unanswered):
        return answer.reason
    return f"{answer.status} {answer.code}".strip()
