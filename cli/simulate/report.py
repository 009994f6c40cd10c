"""What a simulation did, for people and for machines.

In: a simulation, and the check after it, if there was one. Out: a ``Report``, which is JSON as it
stands, and tables of it. Never: a secret, or a body.
"""

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec
from rich import box
from rich.table import Table
from rich.text import Text

from cli.simulate.check import Difference
from cli.simulate.latency import Latency
from cli.simulate.oracle import Order, Totals, trial_totals
from cli.simulate.simulation import Simulation
from ledger.money import major_units

# As many as can be read; the JSON has all.
_SHOWN: Final = 20


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """What the check found; ``totals`` are the oracle's, over the orders that were compared.

    ``undecided`` are orders with an event that is still owed: it may be in the log or not.
    """

    orders: int
    differing: tuple[Difference, ...]
    undecided: tuple[str, ...]
    totals: dict[str, Totals]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A run in figures; ``sent`` deliveries are events and duplicates, ``owed`` are event ids.

    ``latency`` is by outcome: how long the attempts took that ended so.
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
    latency: dict[str, Latency]
    owed: tuple[str, ...]
    took_s: float
    interrupted: bool
    checked: Checked | None = None

    @property
    def is_good(self) -> bool:
        """Whether nothing is owed, and no order differs."""
        return not self.owed and not (self.checked and self.checked.differing)


def report_of(
    simulation: Simulation, *, interrupted: bool, checked: Checked | None = None
) -> Report:
    """Return the figures of a simulation as they are now."""
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


def checked_of(
    foretold: dict[str, Order | None], found: Iterable[Difference], undecided: Iterable[str]
) -> Checked:
    """Return what a check of the foretold orders found."""
    return Checked(
        orders=len(foretold),
        differing=tuple(found),
        undecided=tuple(sorted(undecided)),
        totals=trial_totals(foretold.values()),
    )


def figures_table(report: Report) -> Table:
    """Return what was sent, and what became of it."""
    table = _table(f"Simulation {report.seed} of {report.events} events", "what", "how many")
    rows = [
        ("deliveries sent, with duplicates", report.sent),
        ("attempts", report.attempts),
        ("retries", report.retries),
        *((f"refused: {code}", count) for code, count in report.refused.items()),
        *((f"no answer: {reason}", count) for reason, count in report.unanswered.items()),
        ("deliveries acknowledged", report.acknowledged),
        ("events acknowledged", report.acknowledged_events),
        ("events still owed", len(report.owed)),
    ]
    for name, count in rows:
        table.add_row(Text(name), Text(str(count)))
    return table


def latency_table(latency: Mapping[str, Latency]) -> Table:
    """Return how long the attempts took, from sending to the whole answer, or to none."""
    headings = ("attempts", "p50 ms", "p99 ms", "longest ms")
    table = _table("How long the attempts took", "outcome", *headings)
    for outcome, times in latency.items():
        figures = (times.p50_ms, times.p99_ms, times.longest_ms)
        shown = (Text(f"{each:.3g}" if each < 1000 else f"{each:.0f}") for each in figures)  # noqa: PLR2004
        table.add_row(Text(outcome), Text(str(times.attempts)), *shown)
    return table


def totals_table(checked: Checked) -> Table:
    """Return the trial totals: all orders together, currency by currency."""
    table = _table(f"{checked.orders} orders together", "", "paid", "refunded", "net")
    for currency, totals in checked.totals.items():
        sums = (totals.paid, totals.refunded, totals.net)
        table.add_row(currency, *(Text(major_units(each, currency)) for each in sums))
    return table


def conclusions(report: Report) -> list[Text]:
    """Return the lines under the tables: what is owed, undecided or differs, and the verdict."""
    lines = _named("still owed, and perhaps kept", report.owed)
    checked = report.checked
    if checked is None:
        return lines
    lines += _named("undecided: an event of it is owed", checked.undecided)
    for each in checked.differing[:_SHOWN]:
        lines += [Text(f"order {each.order_id}: {line}", style="red") for line in each.lines]
    differing = len(checked.differing)
    if differing:
        verdict = f"{differing} of {checked.orders} orders differ from what was sent."
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
