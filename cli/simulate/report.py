"""Reports a simulation as JSON and as tables; if orders were checked, includes the check's result.

A report contains no secret and no body.
"""

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec
from rich import box
from rich.table import Table
from rich.text import Text

from cli.printing import counted
from cli.simulate.check import DifferingOrder, Foretold
from cli.simulate.latency import OutcomeLatency
from cli.simulate.oracle import CheckedTotals, trial_totals
from cli.simulate.simulation import Simulation
from ledger.money import major_units

# The console shows at most this many names; the JSON has all of them.
_SHOWN: Final = 20


class LedgerCheck(msgspec.Struct, frozen=True, kw_only=True):
    """The result of the check; ``totals`` are the expected sums over the compared orders.

    ``undecided`` are the orders that have an event that was never acknowledged. Such an event may
    nevertheless be in the log.
    """

    orders: int
    differing: tuple[DifferingOrder, ...]
    undecided: tuple[str, ...]
    totals: dict[str, CheckedTotals]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A run in figures; ``sent`` counts deliveries, including duplicates.

    ``owed`` lists the ids of events that were attempted, but never acknowledged. ``latency`` has
    the durations of the attempts, by outcome.
    """

    seed: int
    events: int
    sent: int
    attempts: int
    retries: int
    acknowledged: int
    acknowledged_events: int
    refused: dict[str, int]
    unanswered: dict[str, int]
    latency: dict[str, OutcomeLatency]
    owed: tuple[str, ...]
    took_s: float
    interrupted: bool
    checked: LedgerCheck | None = None

    @property
    def is_good(self) -> bool:
        """Whether every attempted event was acknowledged, and no order differs."""
        return not self.owed and not (self.checked and self.checked.differing)


def report_of(
    simulation: Simulation, *, interrupted: bool, checked: LedgerCheck | None = None
) -> Report:
    """Return the current figures of a simulation."""
    tally = simulation.tally
    return Report(
        seed=simulation.seed,
        events=simulation.events,
        sent=tally.sent,
        attempts=tally.attempts,
        retries=tally.retries,
        acknowledged=tally.acknowledged,
        acknowledged_events=len(simulation.acknowledged),
        refused=dict(sorted(tally.refused.items())),
        unanswered=dict(sorted(tally.unanswered.items())),
        latency=dict(simulation.latencies.summaries()),
        owed=tuple(sorted(simulation.owed)),
        took_s=round(simulation.took_s, 3),
        interrupted=interrupted,
        checked=checked,
    )


def ledger_check(
    foretold: Foretold, found: Iterable[DifferingOrder], undecided: Iterable[str]
) -> LedgerCheck:
    """Return the result of a check of the predicted orders."""
    return LedgerCheck(
        orders=len(foretold),
        differing=tuple(found),
        undecided=tuple(sorted(undecided)),
        totals=trial_totals(foretold.values()),
    )


def figures_table(report: Report) -> Table:
    """Return a table of the numbers of deliveries, attempts and events, by outcome."""
    table = _table(f"Simulation {report.seed} of {report.events} events", "what", "how many")
    rows = [
        ("deliveries sent, including duplicates", report.sent),
        ("attempts", report.attempts),
        ("retries", report.retries),
        *((f"refused: {code}", count) for code, count in report.refused.items()),
        *((f"no answer: {reason}", count) for reason, count in report.unanswered.items()),
        ("deliveries acknowledged", report.acknowledged),
        ("events acknowledged", report.acknowledged_events),
        ("events not acknowledged", len(report.owed)),
    ]
    for name, count in rows:
        table.add_row(Text(name), Text(str(count)))
    return table


def latency_table(latency: Mapping[str, OutcomeLatency]) -> Table:
    """Return a table of the durations of the attempts, by outcome."""
    headings = ("attempts", "p50 ms", "p99 ms", "longest ms")
    table = _table("How long the attempts took", "outcome", *headings)
    for outcome, times in latency.items():
        figures = (times.p50_ms, times.p99_ms, times.longest_ms)
        shown = (Text(f"{each:.3g}" if each < 1000 else f"{each:.0f}") for each in figures)  # noqa: PLR2004
        table.add_row(Text(outcome), Text(str(times.attempts)), *shown)
    return table


def totals_table(checked: LedgerCheck, digits_of: Mapping[str, int]) -> Table:
    """Return a table of the totals over all orders, by currency."""
    table = _table(f"Totals of {counted(checked.orders, 'order')}", "", "paid", "refunded", "net")
    for currency, totals in checked.totals.items():
        sums = (totals.paid, totals.refunded, totals.net)
        table.add_row(currency, *(Text(major_units(each, currency, digits_of)) for each in sums))
    return table


def conclusions(report: Report) -> list[Text]:
    """Return the lines below the tables: unacknowledged events, differing orders, and a verdict."""
    lines = _named("not acknowledged, but perhaps kept", report.owed)
    checked = report.checked
    if checked is None:
        return lines
    lines += _named("undecided, because an event is not acknowledged", checked.undecided)
    for each in checked.differing[:_SHOWN]:
        lines += [Text(f"order {each.order_id}: {line}", style="red") for line in each.lines]
    differing = len(checked.differing)
    if differing:
        verdict = f"{differing} of {checked.orders} orders differ from the sent events."
        return [*lines, Text(verdict, style="bold red")]
    verdict = f"All {checked.orders} orders are as expected."
    return [*lines, Text(verdict, style="bold green")]


def _named(what: str, names: tuple[str, ...]) -> list[Text]:
    lines = [Text(f"{what}: {name}", style="yellow") for name in names[:_SHOWN]]
    more = len(names) - len(lines)
    return [*lines, Text(f"{what}: {more} more", style="yellow")] if more else lines


def _table(title: str, first: str, *amounts: str) -> Table:
    table = Table(
        title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False
    )
    table.add_column(first)
    for header in amounts:
        table.add_column(header, justify="right", no_wrap=True)
    return table
