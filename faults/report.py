"""Prints each fault when it ends; prints costs by kind, limits and differences after the run.

Lines have at most 100 columns, but a line with a difference may be longer.
"""

from collections.abc import Sequence
from statistics import median
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table

from cli.simulate.report import latency_table
from cli.simulate.simulation import Simulation
from faults.limits import Limit
from faults.run import Cost

WIDTH: Final = 100
_COMMITTED: Final = (
    "No committed offset is beyond its partition's end. verify folded the log from scratch, and "
    "tables, documents and journal equal the result, so no commit skipped unfinished work."
)


def line(cost: Cost) -> str:
    """Return one fault as a line: its kind, target, duration and cost."""
    ended = "" if cost.ended_s is None else f"  ended in {cost.ended_s:.1f} s"
    folds = "never folds" if cost.cost_s is None else f"folds after {cost.cost_s:5.1f} s"
    return (
        f"{cost.number:4}  {cost.kind:<23} {cost.target:<19} held {cost.held_s:5.1f} s  "
        f"{folds}{ended}"
    )


def show(
    console: Console,
    simulation: Simulation,
    costs: Sequence[Cost],
    limits: Sequence[Limit],
    differences: Sequence[str],
) -> None:
    """Print the tables, the sender's tally, and the broken limits and differences."""
    console.print(_costs_table(costs))
    console.print(latency_table(dict(simulation.latencies.summaries())))
    console.print(_limits_table(limits))
    tally = simulation.tally
    console.print(
        f"Seed {simulation.seed}: {len(costs)} faults, {tally.sent} deliveries in "
        f"{tally.attempts} attempts, {len(simulation.acknowledged)} events acknowledged.",
        highlight=False,
    )
    wrong = [*(each for limit in limits for each in limit.broken), *differences]
    for each in wrong:
        console.print(each, style="red", markup=False, highlight=False, soft_wrap=True)
    if not wrong:
        console.print(_COMMITTED, highlight=False)
    broken = sum(bool(limit.broken) for limit in limits)
    verdict = (
        f"{len(differences)} differences, {broken} limits not kept." if wrong else "No difference."
    )
    console.print(verdict, style="bold red" if wrong else "bold green")


def _costs_table(costs: Sequence[Cost]) -> Table:
    table = _table("Faults, and the seconds from a fault until every partition folds again")
    table.add_column("fault")
    for heading in ("times", "held", "median", "longest", "never", "SIGTERM", "answer"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.caption = (
        "held, SIGTERM and answer show the longest time of each kind. held: how long the fault "
        "lasted. SIGTERM: the time until the program ended. answer: the time that ingress took to "
        "answer while it was neither killed nor frozen."
    )
    by_kind: dict[str, list[Cost]] = {}
    for cost in costs:
        by_kind.setdefault(cost.kind, []).append(cost)
    for kind, each in sorted(by_kind.items()):
        table.add_row(kind, *_row(each))
    return table


def _row(costs: Sequence[Cost]) -> list[str]:
    known = [cost.cost_s for cost in costs if cost.cost_s is not None]
    ended = [cost.ended_s for cost in costs if cost.ended_s is not None]
    return [
        str(len(costs)),
        f"{max(cost.held_s for cost in costs):.1f}",
        f"{median(known):.1f}" if known else "",
        f"{max(known):.1f}" if known else "",
        str(len(costs) - len(known)),
        f"{max(ended):.1f}" if ended else "",
        f"{max(cost.answer_s for cost in costs):.1f}",
    ]


def _limits_table(limits: Sequence[Limit]) -> Table:
    table = _table("Limits")
    for heading in ("expected", "measured", ""):
        table.add_column(heading)
    for limit in limits:
        table.add_row(limit.expected, limit.measured or "not measured", _verdict(limit))
    return table


def _verdict(limit: Limit) -> str:
    if limit.broken:
        return "[red]broken[/red]"
    return "kept" if limit.measured else ""


def _table(title: str) -> Table:
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
