"""Reports the results of the fold benchmark as a table, and as rates for ``bench.results``.

If a program was measured more than once, its rate is the median, and the table shows the spread.
A peer's rate is the rate of its fastest program.
"""

import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import results
from bench.fold import WARM_UP_SHARE, FoldRun
from bench.peers.ours import LedgerWorker
from bench.program import Peer

MEASURED = f"""\
Measured: each program first folds a warm-up ({WARM_UP_SHARE:.0%} of the number of measured \
events), and is paused while its input is appended to plexy.webhooks. The time starts when the \
program continues, and ends at the broker's timestamp of the last record in ledger.orders. A run \
is complete once every hop has committed all its records; the wait for these commits does not \
count. A program is one worker process. The topics have 4 partitions, and the broker runs on the \
same machine. CPU is the CPU time of the worker per event. Slow programs fold fewer events in \
fewer rounds. After the first round, only the fastest program of each peer runs.
Checked: each order's status and totals are compared with the result of the ledger's rules, which \
fold the same events in memory."""


def show(console: Console, measurements: Sequence[FoldRun]) -> None:
    """Print the table, an explanation of it, and all differences."""
    table = Table(title="Fold: webhooks → dedupe → payments → orders")
    table.add_column("program")
    for heading in ("events", "rounds", "seconds", "events/s", "spread", "CPU µs", "ours is"):
        table.add_column(heading, justify="right")
    grouped = by_program(measurements)
    ours = rate(grouped[LedgerWorker]) if LedgerWorker in grouped else None
    for program, runs in grouped.items():
        table.add_row(*_row(program, runs, ours))
    console.print(table)
    console.print(MEASURED, highlight=False)
    for run in measurements:
        for line in run.differences:
            console.print(f"[red]{run.program.name}[/red]: {line}", highlight=False)


def write(path: Path, measurements: Sequence[FoldRun]) -> None:
    """Write the peers' rates, in events per second, and the figures of each run."""
    machine = {"cpus": os.cpu_count(), "python": platform.python_version()}
    runs = [_run(run) for run in measurements]
    results.keep(path, "fold", rates(measurements), runs=runs, machine=machine)


def rates(measurements: Sequence[FoldRun]) -> Mapping[str, float]:
    """Return each peer's rate, which is the rate of its fastest program."""
    grouped = by_program(measurements)
    return {program.peer: rate(grouped[program]) for program in fastest(measurements)}


def fastest(measurements: Sequence[FoldRun]) -> list[type[Peer]]:
    """Return each peer's fastest program."""
    best: dict[str, type[Peer]] = {}
    grouped = by_program(measurements)
    for program, runs in grouped.items():
        other = best.get(program.peer)
        if other is None or rate(runs) > rate(grouped[other]):
            best[program.peer] = program
    return list(best.values())


def by_program(measurements: Sequence[FoldRun]) -> dict[type[Peer], list[FoldRun]]:
    """Group the runs by program, in the order of each program's first run."""
    grouped: dict[type[Peer], list[FoldRun]] = {}
    for run in measurements:
        grouped.setdefault(run.program, []).append(run)
    return grouped


def rate(runs: Sequence[FoldRun]) -> float:
    """Return the median rate of a program's runs."""
    return median(run.rate for run in runs)


def _row(program: type[Peer], runs: Sequence[FoldRun], ours: float | None) -> list[str]:
    each = [run.rate for run in runs]
    return [
        program.title,
        f"{runs[0].events:,}",
        f"{len(runs)}",
        f"{median(run.seconds for run in runs):.1f}",
        f"{rate(runs):,.0f}",
        f"{min(each):,.0f} to {max(each):,.0f}" if len(runs) > 1 else "",
        f"{median(run.cpu_us for run in runs):,.0f}",
        f"{ours / rate(runs):.1f}x" if ours and program is not LedgerWorker else "",
    ]


def _run(run: FoldRun) -> dict[str, Any]:
    return {
        "program": run.program.name,
        "events": run.events,
        "seconds": round(run.seconds, 3),
        "events_per_s": round(run.rate, 1),
        "cpu_us_per_event": round(run.cpu_us, 1),
        "equal": not run.differences,
    }
