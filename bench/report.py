"""What was measured, for people (a table) and for programs (``build/bench.json``).

In: measurements, in the order in which they were made. Out: text and JSON. Where a peer was
measured more than once, its rate is the median, and the spread is shown.
"""

import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.fold import Measurement
from bench.peers.faust_plain import FaustPlain
from bench.peers.ours import Ours
from bench.program import Program

MEASURED = """\
Measured: from the moment the worker answers as ready (tables recovered, partitions its own, the \
input already in plexy.webhooks) to the timestamp of the last record that it wrote to \
ledger.orders or a table's changelog; it counts once every hop's committed offset is its end. \
Start-up and the wait for the last commit are not in it. One worker, 4 partitions, the broker on \
the same machine. CPU is the worker's own, per event.
Checked: each order's status and totals against the ledger's rules, folded in memory."""


def show(console: Console, measurements: Sequence[Measurement]) -> None:
    """Print the table, what it means, and what is wrong, if anything is."""
    table = Table(title="Fold: webhooks → dedupe → payments → orders")
    table.add_column("program")
    for heading in ("events", "seconds", "events/s", "spread", "CPU µs", "ratio"):
        table.add_column(heading, justify="right")
    for peer, runs in by_peer(measurements).items():
        table.add_row(*_row(peer, runs, measurements))
    console.print(table)
    console.print(MEASURED, highlight=False)
    for run in measurements:
        for line in run.differences:
            console.print(f"[red]{run.peer.name}[/red]: {line}", highlight=False)


def write_json(path: Path, measurements: Sequence[Measurement]) -> None:
    """Write the rates in events per second, their ratio, and each run."""
    rates = {peer.name: round(rate(runs), 1) for peer, runs in by_peer(measurements).items()}
    ratio = ratio_to_plain(Ours, measurements)
    document = {
        "fold": rates | ({} if ratio is None else {"ratio": round(ratio, 2)}),
        "runs": [_run(run) for run in measurements],
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n")


def by_peer(measurements: Sequence[Measurement]) -> dict[type[Program], list[Measurement]]:
    """Group the runs by peer, in the order of each peer's first run."""
    grouped: dict[type[Program], list[Measurement]] = {}
    for run in measurements:
        grouped.setdefault(run.peer, []).append(run)
    return grouped


def rate(runs: Sequence[Measurement]) -> float:
    """Return the median rate of a peer's runs."""
    return median(run.rate for run in runs)


def ratio_to_plain(peer: type[Program], measurements: Sequence[Measurement]) -> float | None:
    """Return how many times a peer's rate is the plain app's; ``None`` if that was not measured.

    The median over rounds: what ran side by side is compared, as the machine's pace changes.
    """
    grouped = by_peer(measurements)
    if peer not in grouped or FaustPlain not in grouped:
        return None
    pairs = zip(grouped[peer], grouped[FaustPlain], strict=True)
    return median(run.rate / plain.rate for run, plain in pairs)


def _row(
    peer: type[Program], runs: Sequence[Measurement], measurements: Sequence[Measurement]
) -> list[str]:
    rates = [run.rate for run in runs]
    ratio = ratio_to_plain(peer, measurements)
    return [
        peer.title,
        f"{runs[0].events:,}",
        f"{median(run.seconds for run in runs):.1f}",
        f"{rate(runs):,.0f}",
        f"{min(rates):,.0f} to {max(rates):,.0f}" if len(runs) > 1 else "",
        f"{median(run.cpu_us for run in runs):,.0f}",
        f"{ratio:.1f}" if ratio is not None else "",
    ]


def _run(run: Measurement) -> dict[str, Any]:
    return {
        "program": run.peer.name,
        "events": run.events,
        "seconds": round(run.seconds, 3),
        "events_per_s": round(run.rate, 1),
        "cpu_us_per_event": round(run.cpu_us, 1),
        "equal": not run.differences,
    }
