"""The judgement at the end of a run: what was acknowledged is kept, and counts once.

In: the stage, calm again, and what was sent. Out: every difference, a line each. Never: a part of
the judgement that is left out because another one did not come to its end.

That no offset passed undone work does not follow from where the partitions end: it is ``verify``
that shows it, since what was passed for good is missing from what follows from the log.
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
from cli.topics.progress import wait_until_folded
from cli.topics.reading import partitions_of, read_topic, reading
from faults.stage import Stage
from faults.tables import disk_differences

_FOLDED_WITHIN_S: Final = 120.0
_CHECKED_WITHIN_S: Final = 120.0
# A worker on a busy machine answers some hundreds of requests a second.
_CHECKED_PER_ORDER_S: Final = 0.01
_VERIFIED_WITHIN_S: Final = 900.0
_CONCURRENCY: Final = 16


async def judge(stage: Stage, simulation: Simulation) -> list[str]:
    """Return every difference; none if nothing was lost and nothing counted twice.

    A part of the judgement that raises is a difference itself, and the other parts go on.
    """
    parts: dict[str, Callable[[], Awaitable[Iterable[str]]]] = {
        "what is folded": partial(_not_folded, stage),
        "the log": partial(_lost, stage, simulation),
        "the commits": partial(_beyond_the_end, stage),
        "the orders": partial(_wrong_orders, stage, simulation),
        "verify": partial(asyncio.to_thread, _verified, stage),
        "the disks": partial(_wrong_disks, stage),
    }
    differences = [f"still owed: {event_id}" for event_id in sorted(simulation.owed)]
    for name, part in parts.items():
        try:
            differences += await part()
        except Exception as error:  # noqa: BLE001 - becomes a difference
            differences.append(f"{name} could not be judged: {type(error).__name__}: {error}")
    return differences


async def _not_folded(stage: Stage) -> list[str]:
    try:
        await wait_until_folded(stage.settings, _FOLDED_WITHIN_S)
    except NotFoldedError as error:
        return [str(error)]
    return []


async def _lost(stage: Stage, simulation: Simulation) -> list[str]:
    """Compare the log with what was acknowledged, body by body."""
    records = await read_topic(stage.settings, stage.settings.names.webhooks)
    kept = Counter((record.key, record.value) for record in records)
    acknowledged = Counter(
        (event_id.encode(), body)
        for event_id, bodies in simulation.acknowledged.items()
        for body in bodies
    )
    return [
        f"acknowledged and not in the log as it was sent: {key.decode()}"
        for key, _ in acknowledged - kept
    ]


async def _beyond_the_end(stage: Stage) -> list[str]:
    """Compare what is committed with where each partition ends, hop by hop.

    This finds a commit of what was never there, or is lost; not one of undone work.
    """
    names, group = stage.settings.names, stage.settings.group_id
    differences = []
    async with reading(stage.settings) as (admin, consumer):
        committed = await admin.list_consumer_group_offsets(group)
        for topic in (names.webhooks, names.events, names.payments):
            ends = await consumer.end_offsets(await partitions_of(admin, topic))
            differences += [
                f"{tp.topic}[{tp.partition}] is committed up to {committed[tp].offset}, and ends "
                f"at {end}"
                for tp, end in ends.items()
                if tp in committed and committed[tp].offset > end
            ]
    return differences


async def _wrong_orders(stage: Stage, simulation: Simulation) -> Iterator[str]:
    """Compare every order with the oracle's, over HTTP."""
    orders = simulation.orders()
    urls = tuple(worker.url for worker in stage.workers)
    within_s = _CHECKED_WITHIN_S + len(orders) * _CHECKED_PER_ORDER_S
    found = await Check(orders, _CONCURRENCY).run(urls, None, within_s)
    return (f"order {each.order_id}: {line}" for each in found for line in each.lines)


async def _wrong_disks(stage: Stage) -> list[str]:
    """End all workers, and compare what their disks hold with the changelogs, key by key."""
    workers = [*stage.workers, *stage.extras]
    await asyncio.to_thread(stage.end_workers)
    return await disk_differences(
        stage.settings, {worker.label: worker.folder for worker in workers}
    )


def _verified(stage: Stage) -> list[str]:
    """Fold the log anew, and compare tables, documents and journal with it."""
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
