"""Wait until the workers have folded the log, and show how far they are.

Input: the settings of the topics and of the workers' consumer group. Output: nothing, once all
records of the log are folded. A wait has a time limit, and ends with a program that it depends on:
the lag of a worker that crashed would stay forever.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cli.errors import NotFoldedError
from cli.topics.reading import Lag, lags, reading, summed
from runtime.kafka.topics import TopicSettings

# A worker commits twice a second, so that measuring much more often would find nothing new.
_POLL_S: Final = 0.1


Report = Callable[[Lag], None]
"""Receives each measurement."""


async def wait_until_folded(
    settings: TopicSettings,
    timeout_s: float,
    *,
    still_alive: Callable[[], None] = lambda: None,
    report: Report = lambda _lag: None,
) -> None:
    """Return once every record of the log of record is folded through all three hops.

    The hops are waited for one after another: a worker commits an offset only after its outputs are
    acknowledged, so once a hop has no lag, the log of the next hop is complete. Raises
    ``NotFoldedError`` after ``timeout_s``, and the error of ``still_alive`` if a program has ended.
    """
    deadline = time.monotonic() + timeout_s
    async with reading(settings) as (admin, consumer):

        async def measure(topic: str) -> Lag:
            still_alive()
            return summed(topic, await lags(admin, consumer, settings.group_id, topic))

        late = ", and the time is over; the worker's log says what it is doing"
        names = settings.names
        for topic in (names.webhooks, names.events, names.payments):
            await wait_for_hop(partial(measure, topic), deadline, report, late)


async def wait_for_hop(
    measure: Callable[[], Awaitable[Lag]], deadline: float, report: Report, late: str
) -> None:
    """Return once a measurement finds no lag; ``late`` ends the error's sentence."""
    while True:
        lag = await measure()
        report(lag)
        if lag.done >= lag.total:
            return
        if time.monotonic() > deadline:
            left = lag.total - lag.done
            raise NotFoldedError(
                f"{left} of {lag.total} records of {lag.topic} are not folded{late}"
            )
        await asyncio.sleep(_POLL_S)


@contextmanager
def progress_bar(console: Console) -> Iterator[Report]:
    """Show a bar for each topic while the block runs; nothing where there is no terminal."""
    rate = TextColumn("{task.fields[rate]}")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), rate)
    with Progress(
        *columns, TimeElapsedColumn(), console=console, disable=not console.is_terminal
    ) as bars:
        tasks = {}
        first: dict[str, tuple[float, int]] = {}

        def report(lag: Lag) -> None:
            if lag.topic not in tasks:
                tasks[lag.topic] = bars.add_task(f"folding {lag.topic}", total=lag.total, rate="")
            since_s, done = first.setdefault(lag.topic, (time.monotonic(), lag.done))
            rate = f"{(lag.done - done) / max(time.monotonic() - since_s, 0.001):,.0f}/s"
            bars.update(tasks[lag.topic], completed=lag.done, total=lag.total, rate=rate)

        yield report
