"""Defines a measured program: the interface of every peer, and the code that peers share.

A peer runs on a stage whose input is loaded. It reports when it was ready to fold, when its last
order document was written, and each order's totals. Every wait has a time limit. If a program died,
the error shows the last lines of its log.

Most peers run as one process, have a readiness page, and use the topics of ``bench.stage``. Such a
peer defines only its command, its environment and the decoding of its order documents. A peer that
must be built first also defines ``prepare``.
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
from bench.stage import BenchError, BenchStage, Setup

READY_WITHIN_S: Final = 90.0
_READY_POLL_S: Final = 0.02
_LAG_POLL_S: Final = 0.25
# The slowest peer commits every few seconds; on a busy machine, it takes twice as long.
_STALLED_AFTER_S: Final = 60.0
# The shortest session timeout of a peer is 10 s; after a longer pause, a peer loses partitions.
_PAUSED_WITHIN_S: Final = 9.0


class OrderTotals(NamedTuple):
    """An order's status, and the paid and refunded sums by currency, in minor units."""

    status: str
    by_currency: tuple[tuple[str, int, int], ...]


Report = Callable[[float], None]
"""Takes the share of the fold that is done, from 0 to 1."""


class Peer(Measured):
    """One peer on one stage, from ``start`` to ``stop``."""

    name: ClassVar[str]
    """The name of the program's topics and files."""
    peer: ClassVar[str]
    """The peer's key in ``build/bench.json``; only a key's fastest program is written there."""
    title: ClassVar[str]
    """The program's name in the table."""
    share: ClassVar[float] = 1.0
    """The share of the input that the program folds; a slow program folds less."""
    rounds: ClassVar[int] = 100
    """The largest number of rounds in which the program is measured; a slow program has fewer."""

    def __init__(self, stage: BenchStage, place: Setup | None = None) -> None:
        """Put the program on a stage; ``place`` gives a worker its own folder and port."""
        self.stage = stage
        super().__init__(place or stage.place)

    @classmethod
    def lacks(cls) -> str | None:
        """Return a text that names a missing requirement; ``None`` if nothing is missing."""
        return None

    @classmethod
    def prepare(cls) -> None:
        """Build the program's files, if they do not exist yet."""

    @abstractmethod
    def order_totals(self, document: bytes) -> OrderTotals | None:
        """Read one of the peer's order documents; ``None`` for a removed order."""

    def answers_ready(self) -> bool:
        """Return whether the program's readiness page answers 200."""
        url = f"http://127.0.0.1:{self.place.web_port}/readyz"
        try:
            with urllib.request.urlopen(url, timeout=READY_WITHIN_S) as answer:
                return bool(answer.status == 200)  # noqa: PLR2004
        except (urllib.error.URLError, OSError):
            return False

    async def start(self, within_s: float = READY_WITHIN_S) -> float:
        """Start the worker; return the Unix time in seconds at which it was ready to fold.

        Of all probes, take the first probe that got the answer 200. The returned time is the time
        of sending this probe.
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
        """Wait until everything is committed; return the Unix time of the last write, in seconds.

        The broker reports the progress of all hops (the three steps of the fold). If the worker
        makes no progress for too long, raise ``BenchError``.
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
        """Pause the worker while the ``with`` block runs."""
        began_s = time.monotonic()
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
            paused_s = time.monotonic() - began_s
        finally:
            os.kill(self.pid, signal.SIGCONT)
        if paused_s > _PAUSED_WITHIN_S:
            raise BenchError(
                f"{self.name} was paused for {paused_s:.0f} s while its input was loaded. After "
                f"{_PAUSED_WITHIN_S:.0f} s a worker may lose its partitions, which changes its "
                "rate. Use fewer --events, or a less busy machine"
            )

    async def stop(self) -> None:
        """Stop the worker if it runs; kill it after a time limit."""
        await asyncio.to_thread(self.end)

    async def kill(self) -> None:
        """Kill the worker, which then ends as in a crash."""
        await asyncio.to_thread(self.end_at_once)

    def memory_bytes(self) -> int:
        """Return the worker's memory now (RSS), in bytes; 0 outside Linux."""
        statm = Path(f"/proc/{self.pid}/statm")
        return (
            int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0
        )

    def peak_memory_bytes(self) -> int:
        """Return the worker's peak memory (RSS) since its start, in bytes; 0 outside Linux."""
        status = Path(f"/proc/{self.pid}/status")
        if not status.exists():
            return 0
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) * 1024

    async def is_ready(self) -> bool:
        """Ask the worker whether it is ready to fold."""
        return await asyncio.to_thread(self.answers_ready)

    async def totals(self) -> dict[str, OrderTotals]:
        """Return the result: each existing order with its totals."""
        documents = await self.stage.latest(self.place.names.orders)
        return {
            key.decode(): totals
            for key, document in documents.items()
            if document is not None and (totals := self.order_totals(document)) is not None
        }


def totals_by_currency(totals: Mapping[str, Mapping[str, Any]]) -> tuple[tuple[str, int, int], ...]:
    """Convert ``{currency: {"paid": …, "refunded": …}}`` into the form that is compared."""
    return tuple((code, sums["paid"], sums["refunded"]) for code, sums in sorted(totals.items()))


def _share_done(hops: list[tuple[int, int]]) -> float:
    """Return the product of the hops' shares.

    A hop's total counts only the records that the earlier hop has written so far, so no hop's share
    alone is the share of the whole fold.
    """
    share = 1.0
    for done, total in hops:
        share *= done / total if total else 0.0
    return share
