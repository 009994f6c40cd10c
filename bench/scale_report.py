"""Reports, as tables and JSON, the figures of a worker whose state grows and of several workers.

A fold with a wrong result is always reported as wrong.
"""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from bench.growth import Size, Start
from bench.together import Together

_READY_WITHIN_S: Final = 5.0
_MB: Final = 1e6


@dataclass(frozen=True, slots=True)
class Result:
    """The figures for each size of the state, and for each fleet (workers that fold together)."""

    partitions: int
    sizes: Sequence[Size]
    fleets: Sequence[Together]

    @property
    def is_good(self) -> bool:
        """Whether each restart was fast enough, and each result is correct."""
        soon = all(
            start.seconds <= _READY_WITHIN_S for size in self.sizes for start in size.restarts
        )
        return soon and not any(fleet.differences for fleet in self.fleets)


def counted(workers: int) -> str:
    """Return a number of workers in words."""
    return "1 worker" if workers == 1 else f"{workers} workers"


def show(console: Console, result: Result) -> None:
    """Print the tables, an explanation of their columns, and all differences."""
    if result.sizes:
        console.print(_grown(result.sizes))
        console.print(_MEANING, highlight=False)
    if result.fleets:
        console.print(_fleets(result.fleets))
    for fleet in result.fleets:
        for line in fleet.differences:
            console.print(f"[red]{counted(fleet.workers)}[/red]: {line}", highlight=False)


_MEANING: Final = """\
Folded/s: the events per second that pass through all three hops when the ledger has the row's \
number of orders (the median of bursts that were prepared in advance). All other figures were \
measured after the bursts. Ready again: the seconds from the start of the process until /readyz \
answers 200 (the median of the starts after SIGTERM and SIGKILL). Restored: the same seconds if \
the tables were deleted and the worker restores them from the changelogs. Records/s: the number of \
all changelog records, divided by these seconds. MB now: the memory (RSS). MB at most: the largest \
RSS since the start of the process."""


def _grown(sizes: Sequence[Size]) -> Table:
    table = Table(title="As the state grows", title_justify="left")
    for heading in (
        "orders",
        "ids seen",
        "folded/s",
        "slowest\nburst",
        "MB\nnow",
        "MB at\nmost",
        "tables\nMB",
        "ready\nagain s",
        "restored\ns",
        "records/s",
        "MB at\nmost",
    ):
        table.add_column(heading, justify="right")
    for each in sizes:
        table.add_row(
            f"{each.size:,}",
            f"{each.event_ids:,}",
            f"{each.rate:,.0f}",
            f"{min(each.rates):,.0f}",
            f"{each.memory_bytes / _MB:,.0f}",
            f"{each.peak_memory_bytes / _MB:,.0f}",
            f"{each.databases_bytes / _MB:,.0f}",
            f"{median(start.seconds for start in each.restarts):.1f}",
            f"{each.restore.seconds:.1f}",
            f"{each.restore_rate:,.0f}",
            f"{each.restore.peak_memory_bytes / _MB:,.0f}",
        )
    return table


def _fleets(fleets: Sequence[Together]) -> Table:
    title = f"{fleets[0].events:,} events, by several workers"
    table = Table(title=title, title_justify="left")
    for heading in ("workers", "seconds", "folded/s", "CPU µs an event"):
        table.add_column(heading, justify="right")
    for each in fleets:
        cpu_us = each.cpu_s / each.events * 1e6
        table.add_row(
            str(each.workers), f"{each.seconds:.1f}", f"{each.rate:,.0f}", f"{cpu_us:,.0f}"
        )
    return table


def write_json(path: Path, result: Result) -> None:
    """Write all figures, by size and by number of workers."""
    document = {
        "growth": {str(each.size): _size(each) for each in result.sizes},
        "partitions": result.partitions,
        "workers": {str(each.workers): _fleet(each) for each in result.fleets},
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n")


def _size(each: Size) -> dict[str, Any]:
    return {
        "orders": each.orders,
        "deliveries": each.deliveries,
        "event_ids": each.event_ids,
        "events_per_s": round(each.rate, 1),
        "events_per_s_of_each_burst": [round(rate, 1) for rate in each.rates],
        "memory_mb": round(each.memory_bytes / _MB, 1),
        "peak_memory_mb": round(each.peak_memory_bytes / _MB, 1),
        "databases_mb": round(each.databases_bytes / _MB, 1),
        "restarts": [_start(start) for start in each.restarts],
        "restored_records": each.restored_records,
        "restored_records_per_s": round(each.restore_rate, 1),
        "restore": _start(each.restore),
        "bytes_per_delivery": {
            topic: round(size / each.deliveries, 1) for topic, size in each.topics_bytes.items()
        },
    }


def _start(start: Start) -> dict[str, Any]:
    return {
        "after": start.after,
        "seconds": round(start.seconds, 3),
        "cpu_s": round(start.cpu_s, 2),
        "peak_memory_mb": round(start.peak_memory_bytes / _MB, 1),
    }


def _fleet(each: Together) -> dict[str, Any]:
    return {
        "events": each.events,
        "events_per_s": round(each.rate, 1),
        "cpu_us_per_event": round(each.cpu_s / each.events * 1e6, 1),
        "equal": not each.differences,
    }
