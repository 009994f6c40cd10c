"""How far the workers are: what is folded of what was written.

In: the settings of the topics and the workers' consumer group. Out: nothing, once everything
that is in the log is folded. Never: a wait without a bound, and never a wait for a program that has
ended: a worker that crashed would leave its lag for ever.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import msgspec
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cli.errors import NotFoldedError
from cli.topics.lag import Lag, lags, summed
from cli.topics.whole_topic import reading
from runtime.kafka.topics import TopicSettings

# A worker commits twice a second: asking much more often finds nothing new.
_POLL_S: Final = 0.1


Report = Callable[[Lag], None]
"""Hears of each measurement."""


class _Measure(msgspec.Struct, frozen=True):
    """The two clients that it takes: group offsets from one, log ends from the other."""

    admin: AIOKafkaAdminClient
    consumer: AIOKafkaConsumer
    group: str

    async def lag(self, topic: str) -> Lag:
        """Measure one topic; a partition without a commit counts from its beginning."""
        return summed(topic, await lags(self.admin, self.consumer, self.group, topic))


async def wait_until_folded(
    settings: TopicSettings,
    timeout_s: float,
    *,
    still_alive: Callable[[], None] = lambda: None,
    report: Report = lambda _lag: None,
) -> None:
    """Return once every record of the log of record is folded through all three hops.

    Hop by hop: an offset is committed only after its outputs are acknowledged, so once a hop has no
    lag, the next one's log has all that will come. Raises ``NotFoldedError`` after ``timeout_s``,
    and whatever ``still_alive`` raises when a program has ended.
    """
    deadline = time.monotonic() + timeout_s
    async with reading(settings) as (admin, consumer):
        measure = _Measure(admin, consumer, settings.group_id)
        names = settings.names
        for topic in (names.webhooks, names.events, names.payments):
            await _wait_for(measure, topic, deadline, still_alive, report)


async def _wait_for(
    measure: _Measure,
    topic: str,
    deadline: float,
    still_alive: Callable[[], None],
    report: Report,
) -> None:
    while True:
        still_alive()
        lag = await measure.lag(topic)
        report(lag)
        if lag.done >= lag.total:
            return
        if time.monotonic() > deadline:
            raise NotFoldedError(
                f"{lag.total - lag.done} of {lag.total} records of {topic} are not folded, and the "
                "time is over; the worker's log says what it is doing"
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
