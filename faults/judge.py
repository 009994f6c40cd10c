"""Checks at the end of a run that each acknowledged delivery is in the log and counts once.

A comparison of committed offsets with the ends of the partitions can't show a commit that skips
unfinished work. ``verify`` shows such a commit, because the outputs of the skipped records are
missing.
"""

import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from functools import partial
from typing import Final

from cli.errors import NotFoldedError
from cli.simulate.check import Check
from cli.simulate.simulation import Simulation
from cli.topics.ledger_reader import open_reader
from faults.stage import FaultStage
from faults.tables import disk_differences

_FOLDED_WITHIN_S: Final = 120.0
_CHECKED_WITHIN_S: Final = 120.0
# A worker on a busy machine answers a few hundred requests a second.
_CHECKED_PER_ORDER_S: Final = 0.01
_VERIFIED_WITHIN_S: Final = 900.0
_CONCURRENCY: Final = 16


async def judge(stage: FaultStage, simulation: Simulation) -> list[str]:
    """Return every difference; the list is empty if nothing was lost or counted twice.

    If a check raises an exception, this counts as one difference, and the other checks still run.
    """
    parts: dict[str, Callable[[], Awaitable[Iterable[str]]]] = {
        "the fold": partial(_not_folded, stage),
        "the log": partial(_lost, stage, simulation),
        "the commits": partial(_beyond_the_end, stage),
        "the orders": partial(_wrong_orders, stage, simulation),
        "verify": partial(asyncio.to_thread, _verified, stage),
        "the disks": partial(_wrong_disks, stage),
    }
    differences = [
        f"attempted, but never acknowledged: {event_id}" for event_id in sorted(simulation.owed)
    ]
    for name, part in parts.items():
        try:
            differences += await part()
        except Exception as error:  # noqa: BLE001 - becomes a difference
            differences.append(f"{name} could not be judged: {type(error).__name__}: {error}")
    return differences


async def _not_folded(stage: FaultStage) -> list[str]:
    try:
        async with open_reader(stage.settings) as reader:
            await reader.settle(_FOLDED_WITHIN_S)
    except NotFoldedError as error:
        return [str(error)]
    return []


async def _lost(stage: FaultStage, simulation: Simulation) -> list[str]:
    """Compare the log with the acknowledged deliveries, body by body."""
    async with open_reader(stage.settings) as reader:
        records = await reader.whole(reader.names.topics.webhooks)
    kept = Counter((record.key, record.value) for record in records)
    acknowledged = Counter(
        (event_id.encode(), body)
        for event_id, bodies in simulation.acknowledged.items()
        for body in bodies
    )
    return [
        f"acknowledged, but not in the log as sent: {key.decode()}"
        for key, _ in acknowledged - kept
    ]


async def _beyond_the_end(stage: FaultStage) -> list[str]:
    """Compare the committed offsets with the end of each partition, hop by hop.

    The comparison finds a commit beyond the end of a partition, which means that records were lost.
    It does not find a commit that skips unfinished work.
    """
    differences = []
    async with open_reader(stage.settings) as reader:
        for topic in reader.names.topics.hops:
            committed = await reader.committed(topic)
            differences += [
                f"{topic}[{number}] is committed up to {committed[number]}, but ends at {end}"
                for number, end in (await reader.ends(topic)).items()
                if committed.get(number, 0) > end
            ]
    return differences


async def _wrong_orders(stage: FaultStage, simulation: Simulation) -> Iterator[str]:
    """Compare every order in the views with the order that the simulation expects."""
    orders = simulation.orders()
    urls = tuple(worker.url for worker in stage.workers)
    within_s = _CHECKED_WITHIN_S + len(orders) * _CHECKED_PER_ORDER_S
    found = await Check(orders, _CONCURRENCY).run(urls, None, within_s)
    return (f"order {each.order_id}: {line}" for each in found for line in each.lines)


async def _wrong_disks(stage: FaultStage) -> list[str]:
    """End all workers, and compare their tables on disk with the changelogs, key by key."""
    workers = [*stage.workers, *stage.extras]
    await asyncio.to_thread(stage.end_workers)
    return await disk_differences(
        stage.settings, {worker.label: worker.folder for worker in workers}
    )


def _verified(stage: FaultStage) -> list[str]:
    """Fold the log from scratch, and compare tables, documents and journal with the result."""
    try:
        verify = subprocess.run(
            [sys.executable, "-m", "cli", "verify"],
            env=stage.environment,
            capture_output=True,
            text=True,
            timeout=_VERIFIED_WITHIN_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return [f"verify: it had not ended after {_VERIFIED_WITHIN_S:g} s"]
    return [] if verify.returncode == 0 else [f"verify: {line}" for line in _lines(verify)]


def _lines(done: "subprocess.CompletedProcess[str]") -> list[str]:
    return (done.stdout + done.stderr).splitlines()
