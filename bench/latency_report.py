"""Reports latencies as a table and as JSON.

The report has the percentiles (by nearest rank), the number of samples, and the error of the view
times. If a measurement is unsound, the report says why.
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

from bench.open_load import LoadOutcome

# If the latest 1 % of the deliveries were sent later than this, the load did not have its stated
# rate.
_KEPT_UP_MS: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RateResult:
    """The outcome of the deliveries at one rate, and the share of a core that each program used."""

    rate_per_s: float
    outcome: LoadOutcome
    ingest_cpu: float
    worker_cpu: float

    @property
    def kept_up(self) -> bool:
        """Whether the deliveries were sent when they were due."""
        return within_ms(self.outcome.late_s, 0.99) <= _KEPT_UP_MS

    @property
    def is_sound(self) -> bool:
        """Whether the load kept its rate, no delivery was refused, and every sample was seen."""
        return self.kept_up and not self.outcome.refused and not self.outcome.unseen


def within_ms(times_s: Sequence[float], share: float) -> float:
    """Return the milliseconds within which ``share`` of the times lie (the nearest rank)."""
    if not times_s:
        return math.nan
    rank = max(math.ceil(len(times_s) * share), 1)
    return sorted(times_s)[rank - 1] * 1000


def show(console: Console, measured: Sequence[RateResult]) -> None:
    """Print the table, an explanation of its columns, and all faults."""
    table = Table(title="Milliseconds since the scheduled time of a POST", title_justify="left")
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
ack: the time until the answer 200 was complete. view: the time until GET /orders/{id} first \
answered with the event. By then, the event had been visible for at most `error`, because a \
request that was sent `error` earlier did not show it. sent late: the delay of the POST itself. \
CPU: the share of one core that the program used."""


def _complaints(each: RateResult) -> Iterator[str]:
    if not each.kept_up:
        yield (
            f"the load was not sent on time: 1 % of the deliveries were sent more than "
            f"{within_ms(each.outcome.late_s, 0.99):.1f} ms late"
        )
    if each.outcome.refused:
        yield f"{each.outcome.refused} deliveries were not answered with 200"
    if each.outcome.unseen:
        yield f"{each.outcome.unseen} events were not seen"


def _figures(each: RateResult) -> dict[str, Any]:
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


def write_json(path: Path, measured: Sequence[RateResult], seconds: float) -> None:
    """Write the figures of each rate; the load at each rate lasted ``seconds``."""
    document = {
        "by_rate": {f"{each.rate_per_s:g}": _figures(each) for each in measured},
        "seconds": seconds,
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n")
