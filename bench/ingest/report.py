"""Reports the measurements as a table, and as data for ``build/bench.json``.

A server's rate is the median over its rounds. For a ratio, the two rates of each round are divided
first, because the runs of one round followed each other closely. The report shows the median of
these quotients.
"""

from collections.abc import Sequence
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.ingest.run import IngestRun
from bench.ingest.servers import LedgerIngress, Server

MEASURED = """\
Per second: the answers that wrk counted. Each server process is warmed up before it is measured. \
Each connection sends its next delivery once its previous delivery was answered. The server, the \
broker and wrk share the machine's processors. Ratio: our rate divided by the server's rate (the \
median over the rounds)."""


def show(console: Console, measurements: Sequence[IngestRun], connections: int) -> None:
    """Print the table, and the faults of the runs."""
    table = Table(title=f"Ingress, deliveries at {connections} connections", title_justify="left")
    table.add_column("server")
    for heading in ("per second", "spread", "p50 ms", "p99 ms", "CPU µs", "ratio"):
        table.add_column(heading, justify="right")
    for server, runs in by_server(measurements).items():
        table.add_row(*_row(server, runs, measurements))
    console.print(table)
    console.print(MEASURED, highlight=False)
    for run in measurements:
        for fault in run.faults:
            console.print(f"[red]{run.server.name}[/red]: {fault}", highlight=False)


def by_server(measurements: Sequence[IngestRun]) -> dict[type[Server], list[IngestRun]]:
    """Group the runs by server, in the order of each server's first run."""
    grouped: dict[type[Server], list[IngestRun]] = {}
    for run in measurements:
        grouped.setdefault(run.server, []).append(run)
    return grouped


def rates(measurements: Sequence[IngestRun]) -> dict[str, float]:
    """Return each server's rate in deliveries per second."""
    grouped = by_server(measurements)
    return {
        server.name: round(median(run.rate for run in runs), 1) for server, runs in grouped.items()
    }


def details(measurements: Sequence[IngestRun]) -> list[dict[str, Any]]:
    """Return the figures of each run."""
    return [
        {
            "server": run.server.name,
            "deliveries_per_s": round(run.rate, 1),
            "answered": run.load.answered,
            "seconds": round(run.load.took_us / 1e6, 3),
            "p50_ms": run.load.p50_us / 1000,
            "p99_ms": run.load.p99_us / 1000,
            "cpu_us_per_delivery": round(run.cpu_us, 1),
            "faults": run.faults,
        }
        for run in measurements
    ]


def ratio(server: type[Server], measurements: Sequence[IngestRun]) -> float | None:
    """Return our rate divided by a server's rate; ``None`` if our rate was not measured."""
    grouped = by_server(measurements)
    if LedgerIngress not in grouped:
        return None
    return median(
        ours.rate / other.rate
        for ours, other in zip(grouped[LedgerIngress], grouped[server], strict=True)
    )


def _row(
    server: type[Server], runs: Sequence[IngestRun], measurements: Sequence[IngestRun]
) -> list[str]:
    each = [run.rate for run in runs]
    of_ours = ratio(server, measurements)
    return [
        server.title,
        f"{median(each):,.0f}",
        f"{min(each):,.0f} to {max(each):,.0f}" if len(runs) > 1 else "",
        f"{median(run.load.p50_us for run in runs) / 1000:,.1f}",
        f"{median(run.load.p99_us for run in runs) / 1000:,.1f}",
        f"{median(run.cpu_us for run in runs):,.0f}",
        f"{of_ours:.2f}" if of_ours is not None else "",
    ]
