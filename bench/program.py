"""A program under measurement: what every peer must be able to do, and what processes share.

In: a stage that is loaded. Out: when it was ready to fold, when its last effect was written, and
each order's totals. Never: a wait without a bound; a program that died is reported with its last
lines.

A peer that is a process of its own, with a readiness page and the topics of ``bench.stage``, needs
no more than a command, an environment and the reading of its order documents; one that must be
built first says so.
"""

import asyncio
import os
import signal
import time
import urllib.error
import urllib.request
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple

from bench.measured import Measured
from bench.stage import BenchError, Setup, Stage

READY_WITHIN_S: Final = 90.0
_READY_POLL_S: Final = 0.02
_LAG_POLL_S: Final = 0.25
# The slowest peer commits every few seconds, and a busy machine may double that.
_STALLED_AFTER_S: Final = 60.0
# The shortest session that a worker has with the broker is 10 s.
_PAUSED_WITHIN_S: Final = 9.0


class OrderTotals(NamedTuple):
    """An order's status and, by currency, what was paid and refunded, in minor units."""

    status: str
    by_currency: tuple[tuple[str, int, int], ...]


Report = Callable[[float], None]
"""Takes how much of the fold is done, from 0 to 1."""


class Program(Measured):
    """One peer on one stage, from ``start`` to ``stop``."""

    name: ClassVar[str]
    """What its topics and files are called by."""
    peer: ClassVar[str]
    """Its key in ``build/bench.json``; of several programs with one, the fastest counts."""
    title: ClassVar[str]
    """What the table calls it."""
    share: ClassVar[float] = 1.0
    """How much of the input a slow one is given: a rate is a rate."""
    rounds: ClassVar[int] = 100
    """At most so often is a slow one measured."""

    def __init__(self, stage: Stage, place: Setup | None = None) -> None:
        """``place`` sets one of several workers on a stage apart: its folder and its port."""
        self.stage = stage
        super().__init__(place or stage.place)

    @classmethod
    def lacks(cls) -> str | None:
        """Say what this machine lacks to run it; ``None`` if nothing."""
        return None

    @classmethod
    def prepare(cls) -> None:
        """Build what it runs from, unless that is there."""

    @abstractmethod
    def order_totals(self, document: bytes) -> OrderTotals | None:
        """Read one of its order documents; ``None`` if it says that the order is no more."""

    def answers_ready(self) -> bool:
        """Ask its readiness page."""
        url = f"http://127.0.0.1:{self.place.web_port}/readyz"
        try:
            with urllib.request.urlopen(url, timeout=READY_WITHIN_S) as answer:
                return bool(answer.status == 200)  # noqa: PLR2004
        except (urllib.error.URLError, OSError):
            return False

    async def start(self, within_s: float = READY_WITHIN_S) -> float:
        """Start the worker; return, in Unix seconds, when it was ready to fold.

        That is when the first probe was sent that the worker answered with 200.
        """
        self.launch()
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            self.ensure_runs()
            sent_at = time.time()
            if await asyncio.to_thread(self.answers_ready):
                return sent_at
            await asyncio.sleep(_READY_POLL_S)
        raise self.failed(f"was not ready within {within_s:.0f} s")

    async def wait(self, report: Report) -> float:
        """Wait until everything is folded and committed; return when it was written, Unix seconds.

        All hops are watched through the broker; a worker that makes no progress fails.
        """
        best, moved_at = 0, time.monotonic()
        while True:
            self.ensure_runs()
            hops = await self.stage.progress()
            report(_share_done(hops))
            if all(done == total for done, total in hops):
                return await self.stage.last_written_s()
            done = sum(done for done, _ in hops)
            if done > best:
                best, moved_at = done, time.monotonic()
            if time.monotonic() - moved_at > _STALLED_AFTER_S:
                shown = ", ".join(f"{done} of {total}" for done, total in hops)
                raise self.failed(f"committed nothing for {_STALLED_AFTER_S:.0f} s, at {shown}")
            await asyncio.sleep(_LAG_POLL_S)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the worker where it stands; it goes on when the block ends."""
        began_s = time.monotonic()
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
            stood_still_s = time.monotonic() - began_s
        finally:
            os.kill(self.pid, signal.SIGCONT)
        if stood_still_s > _PAUSED_WITHIN_S:
            raise BenchError(
                f"{self.name} stood still for {stood_still_s:.0f} s while its input was loaded: in "
                f"more than {_PAUSED_WITHIN_S:.0f} s a worker loses its partitions, and the rate "
                "would be another. Take fewer --events, or a quieter machine"
            )

    async def stop(self) -> None:
        """Stop the worker, by force after a while; nothing if it does not run."""
        await asyncio.to_thread(self.end)

    async def kill(self) -> None:
        """End the worker as a crash would."""
        await asyncio.to_thread(self.end_at_once)

    def memory_bytes(self) -> int:
        """Return how much of the worker is in memory now (RSS); 0 beyond Linux."""
        statm = Path(f"/proc/{self.pid}/statm")
        return (
            int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0
        )

    def peak_memory_bytes(self) -> int:
        """Return how much of the worker was in memory at most, since its start; 0 beyond Linux."""
        status = Path(f"/proc/{self.pid}/status")
        if not status.exists():
            return 0
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) * 1024

    async def is_ready(self) -> bool:
        """Ask the worker whether it is ready to fold."""
        return await asyncio.to_thread(self.answers_ready)

    async def totals(self) -> dict[str, OrderTotals]:
        """Return the result: each order that is there, with its totals."""
        documents = await self.stage.latest(self.place.names.orders)
        return {
            key.decode(): totals
            for key, document in documents.items()
            if document is not None and (totals := self.order_totals(document)) is not None
        }


def totals_by_currency(totals: Mapping[str, Mapping[str, Any]]) -> tuple[tuple[str, int, int], ...]:
    """Bring ``{currency: {"paid": …, "refunded": …}}`` into the form that is compared."""
    return tuple((code, sums["paid"], sums["refunded"]) for code, sums in sorted(totals.items()))


def _share_done(hops: list[tuple[int, int]]) -> float:
    """Multiply the hops' shares: a later hop has only been given what the earlier one has done."""
    share = 1.0
    for done, total in hops:
        share *= done / total if total else 0.0
    return share
