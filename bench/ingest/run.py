"""Performs one measured run: starts a server, warms it up, measures it under load, checks the log.

A run has a fault if a delivery was refused, if a delivery got no answer, or if the log lacks an
acknowledged delivery.
"""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from bench.ingest.load import Load, deliver
from bench.ingest.servers import Server
from bench.profile import profiled
from bench.stage import Setup, open_stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The load with which every server is measured; times are in seconds."""

    bodies: Path
    connections: int
    seconds: int
    warm_up_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestRun:
    """One run of one server; ``kept`` is the number of records in the log after the run."""

    server: type[Server]
    load: Load
    warm_up: Load
    cpu_s: float
    kept: int

    @property
    def rate(self) -> float:
        """Deliveries answered per second."""
        return self.load.rate

    @property
    def cpu_us(self) -> float:
        """CPU microseconds per delivery; other work on the machine affects ``rate`` more."""
        return self.cpu_s / self.load.answered * 1e6

    @property
    def faults(self) -> list[str]:
        """The faults of this run."""
        faults = []
        acknowledged = 0
        for load in (self.warm_up, self.load):
            acknowledged += load.answered - load.refused
            if load.refused or load.lost:
                faults.append(f"{load.refused} deliveries were refused, {load.lost} got no answer")
        if self.server.keeps and self.kept < acknowledged:
            faults.append(f"{acknowledged} deliveries were acknowledged, the log has {self.kept}")
        return faults


async def measure(
    server: type[Server], place: Setup, plan: Plan, profile: str | None = None
) -> IngestRun:
    """Measure one server on its own topics; raise ``BenchError`` on failure."""
    async with open_stage(place) as stage:
        started = server(place)
        try:
            await asyncio.to_thread(started.start)
            warm_up = await _load(started, plan, plan.warm_up_s, run=1)
            cpu_before_s = started.cpu_s()
            async with profiled(started.pid, profile):
                load = await _load(started, plan, plan.seconds, run=2)
            cpu_s = started.cpu_s() - cpu_before_s
        finally:
            await asyncio.to_thread(started.end)
        kept = await stage.count(place.names.webhooks)
    return IngestRun(server=server, load=load, warm_up=warm_up, cpu_s=cpu_s, kept=kept)


async def _load(server: Server, plan: Plan, seconds: int, run: int) -> Load:
    return await asyncio.to_thread(
        deliver,
        server.port,
        plan.bodies,
        seconds=seconds,
        connections=plan.connections,
        run=run,
    )
