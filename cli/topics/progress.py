"""Shows how many records of each topic the workers have folded, as a bar on a terminal."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cli.topics.lag import Lag

Report = Callable[[Lag], None]
"""Receives each measurement."""


@contextmanager
def progress_bar(console: Console) -> Iterator[Report]:
    """Show a bar for each topic while the block runs; show nothing without a terminal."""
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
