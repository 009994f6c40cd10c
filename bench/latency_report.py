"""What was measured of latencies, for people (a table) and for programs (JSON).

In: what came of the deliveries at each rate. Out: shares of the times by nearest rank, and what
makes a measurement unsound. Never: a figure without its number of samples and its error.
"""

import json
import math
import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from bench.open_load import Outcome

# What is late by more than this, in one of a hundred deliveries, was not sent at the rate it says.
_KEPT_UP_MS: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """One rate: what came of its deliveries, and the share of a core that each program took."""

    rate_per_s: float
    outcome: Outcome
    ingest_cpu: float
    worker_cpu: float

    @property
    def kept_up(self) -> bool:
        """Whether the deliveries were sent when they were due."""
        return within_ms(self.outcome.late_s, 0.99) <= _KEPT_UP_MS

    @property
    def is_sound(self) -> bool:
        """Whether all was sent in time, taken and seen."""
        return self.kept_up and not self.outcome.refused and not self.outcome.unseen


def within_ms(times_s: Sequence[float], share: float) -> float:
    """Return the time, in milliseconds, within which a share of them was over (nearest rank)."""
    if not times_s:
        return math.nan
    rank = max(math.ceil(len(times_s) * share), 1)
    return sorted(times_s)[rank - 1] * 1000


def show(console: Console, measured: Sequence[Latency]) -> None:
    """Print the table, what it means, and what is wrong, if anything is."""
    table = Table(title="From the scheduled time of a POST, in milliseconds", title_justify="left")
    for heading in (
        "deliveries/s",
        "ack p50",
        "ack p99",
        "view p50",
        "view p99",
        "samples",
        "error p50",
        "sent late p99",
        "ingest CPU",
        "worker CPU",
    ):
        table.add_column(heading, justify="right")
    for each in measured:
        figures = _figures(each)
        table.add_row(
            f"{each.rate_per_s:,.0f}",
            *(
                f"{figures[name]:,.1f}"
                for name in ("ack_p50_ms", "ack_p99_ms", "queryable_p50_ms", "queryable_p99_ms")
            ),
            f"{figures['samples']:,}",
            f"{figures['error_p50_ms']:.1f}",
            f"{figures['late_p99_ms']:.1f}",
            f"{each.ingest_cpu:.0%}",
            f"{each.worker_cpu:.0%}",
        )
    console.print(table)
    console.print(_MEANING, highlight=False)
    for each in measured:
        for complaint in _complaints(each):
            console.print(f"[red]{each.rate_per_s:,.0f}/s[/red]: {complaint}", highlight=False)


_MEANING: Final = """\
ack: until the answer 200 was whole. view: until GET /orders/{id} showed the event; the first \
answer that had it counts, and the event came there at most `error` earlier, since the question \
before it was sent. CPU: shares of a core."""


def _complaints(each: Latency) -> Iterator[str]:
    if not each.kept_up:
        yield (
            f"the load was not sent in time: 1 % was more than "
            f"{within_ms(each.outcome.late_s, 0.99):.1f} ms late"
        )
    if each.outcome.refused:
        yield f"{each.outcome.refused} deliveries were not answered with 200"
    if each.outcome.unseen:
        yield f"{each.outcome.unseen} events were not seen"


def _figures(each: Latency) -> dict[str, Any]:
    outcome = each.outcome
    seen = [sample.seen_s for sample in outcome.samples]
    errors = [sample.seen_s - sample.not_before_s for sample in outcome.samples]
    figures = {
        "ack_p50_ms": within_ms(outcome.ack_s, 0.5),
        "ack_p99_ms": within_ms(outcome.ack_s, 0.99),
        "queryable_p50_ms": within_ms(seen, 0.5),
        "queryable_p99_ms": within_ms(seen, 0.99),
        "error_p50_ms": within_ms(errors, 0.5),
        "error_p99_ms": within_ms(errors, 0.99),
        "late_p50_ms": within_ms(outcome.late_s, 0.5),
        "late_p99_ms": within_ms(outcome.late_s, 0.99),
    }
    return {
        **{name: round(value, 2) for name, value in figures.items()},
        "sent": outcome.sent,
        "samples": len(seen),
        "refused": outcome.refused,
        "unseen": outcome.unseen,
        "ingest_cpu": round(each.ingest_cpu, 3),
        "worker_cpu": round(each.worker_cpu, 3),
        "kept_up": each.kept_up,
    }


def write_json(path: Path, measured: Sequence[Latency], seconds: float) -> None:
    """Write the figures of each rate, of so many seconds of sending."""
    document = {
        "by_rate": {f"{each.rate_per_s:g}": _figures(each) for each in measured},
        "seconds": seconds,
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n")
