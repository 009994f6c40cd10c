"""What a run shows at the end: the faults by kind with what they cost, and every difference."""

from collections.abc import Sequence
from statistics import median

from rich.console import Console
from rich.table import Table

from cli.simulate.simulation import Simulation
from faults.run import Cost


def show(
    console: Console, costs: Sequence[Cost], simulation: Simulation, differences: Sequence[str]
) -> None:
    """Print the table, the sender's tally, and what is wrong, if anything is."""
    table = Table(title="Faults, and the seconds until every partition folds again")
    table.add_column("fault")
    for heading in ("times", "held at most", "median", "longest", "never"):
        table.add_column(heading, justify="right")
    by_kind: dict[str, list[Cost]] = {}
    for cost in costs:
        by_kind.setdefault(cost.kind, []).append(cost)
    for kind, each in sorted(by_kind.items()):
        table.add_row(kind, *_row(each))
    console.print(table)
    tally = simulation.tally
    refused = ", ".join(f"{count} x {name}" for name, count in tally.refused.most_common())
    unanswered = ", ".join(f"{count} x {name}" for name, count in tally.unanswered.most_common())
    console.print(
        f"Seed {simulation.seed}: {len(costs)} faults, {tally.sent} deliveries in "
        f"{tally.attempts} attempts, {len(simulation.acknowledged)} events acknowledged. "
        f"Refused: {refused or 'none'}. Unanswered: {unanswered or 'none'}.",
        highlight=False,
    )
    for line in differences:
        console.print(line, style="red", markup=False, highlight=False, soft_wrap=True)
    verdict = f"{len(differences)} differences" if differences else "No difference."
    console.print(verdict, style="bold red" if differences else "bold green")


def _row(costs: Sequence[Cost]) -> list[str]:
    known = [cost.cost_s for cost in costs if cost.cost_s is not None]
    return [
        str(len(costs)),
        f"{max(cost.hold_s for cost in costs):.0f}",
        f"{median(known):.1f}" if known else "",
        f"{max(known):.1f}" if known else "",
        str(len(costs) - len(known)),
    ]
