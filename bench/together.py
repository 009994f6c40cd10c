"""Measures the rate at which several workers together fold one log.

The time runs from the write of the first delivery to the write of the last order document. The
first delivery is written after the group has assigned its partitions.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from bench.burst import prepared
from bench.fold import differences, expected_totals
from bench.peers.ours import LedgerWorker
from bench.recording import RecordedDelivery
from bench.stage import BenchError, BenchStage
from cli.kafka.process import free_port

_ASSIGNED_WITHIN_S: Final = 90.0
_LOOK_EVERY_S: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Together:
    """The result of one run with ``workers`` workers; a correct fold has no ``differences``."""

    workers: int
    events: int
    seconds: float
    cpu_s: float
    differences: Sequence[str]

    @property
    def rate(self) -> float:
        """Deliveries folded per second, by all workers together."""
        return self.events / self.seconds


async def fold_together(
    stage: BenchStage,
    count: int,
    deliveries: Sequence[RecordedDelivery],
    report: Callable[[float], None],
) -> Together:
    """Start the workers, let them fold the deliveries, and stop the workers."""
    workers = [_worker(stage, number) for number in range(count)]
    try:
        for worker in workers:
            await worker.start()
        await _until_assigned(stage, workers)
        before_s = sum(worker.cpu_s() for worker in workers)
        async with prepared(stage.place, deliveries) as burst:
            began_s = await burst.write()
            ended_s = await workers[0].wait(report)
        for worker in workers:
            worker.ensure_runs()
        cpu_s = sum(worker.cpu_s() for worker in workers) - before_s
    finally:
        await asyncio.gather(*(worker.stop() for worker in workers))
    totals = await workers[0].totals()
    return Together(
        workers=count,
        events=len(deliveries),
        seconds=ended_s - began_s,
        cpu_s=cpu_s,
        differences=differences(totals, expected_totals(deliveries)),
    )


def _worker(stage: BenchStage, number: int) -> LedgerWorker:
    folder = stage.place.folder / f"worker-{number}"
    return LedgerWorker(stage, replace(stage.place, folder=folder, web_port=free_port()))


async def _until_assigned(stage: BenchStage, workers: Sequence[LedgerWorker]) -> None:
    """Wait until the group has all workers, and each worker is ready."""
    deadline = time.monotonic() + _ASSIGNED_WITHIN_S
    while time.monotonic() < deadline:
        ready = await asyncio.gather(*(worker.is_ready() for worker in workers))
        if all(ready) and await stage.members() == len(workers):
            return
        await asyncio.sleep(_LOOK_EVERY_S)
    raise BenchError(f"{len(workers)} workers were not ready within {_ASSIGNED_WITHIN_S:.0f} s")
