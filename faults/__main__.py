"""`python -m faults`: break everything that can break while deliveries go on, then judge.

In: the options below. Out: a table of the faults and what each cost, every difference, the seed.
Exit code 1 on any difference, 2 if the stage itself failed. Everything runs on loopback, in a
temporary folder.
"""

import argparse
import asyncio
import os
import secrets
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cli.kafka_distribution import EmbeddedKafkaError
from cli.local import kafka_cache, sigterm_as_interrupt
from cli.settings import DemoSettings
from cli.simulate.simulation import Simulation
from faults.injections import KINDS, Kind
from faults.judge import judge
from faults.report import show
from faults.run import Cost, plan, run, sender_options
from faults.stage import Stage, StageError

# More than any run takes: the sending ends with the last fault.
_EVENTS = 10_000_000


def main() -> int:
    """Run, judge, show; return the exit code."""
    options = _options()
    console = Console()
    console.print(
        f"Seed {options.seed}; with --seed {options.seed} and the same options it runs again."
    )
    with sigterm_as_interrupt(), tempfile.TemporaryDirectory(prefix="plexy-faults-") as folder:
        try:
            return _run(options, Path(options.keep or folder), console)
        except KeyboardInterrupt:
            return 130
        except (StageError, EmbeddedKafkaError) as error:
            console.print(str(error), markup=False, highlight=False)
            return 2


def _run(options: argparse.Namespace, folder: Path, console: Console) -> int:
    kinds = [kind for kind in KINDS if not options.kinds or kind.name in options.kinds]
    cache = kafka_cache(DemoSettings.from_environment(os.environ))
    with Stage(folder, cache, options.workers) as stage, _progress(console) as progress:
        simulation = Simulation(options.seed, _EVENTS, sender_options(stage, options.rate))
        bar = progress.add_task("faults", total=options.faults)

        def report(cost: Cost) -> None:
            progress.advance(bar)
            if not console.is_terminal:
                console.print(cost, markup=False, highlight=False, soft_wrap=True)

        costs, differences = asyncio.run(_judged(stage, simulation, kinds, options, report))
        for each in stage.unplanned:
            differences.append(f"{each.program} {each.how}, and no fault had ended it:")
            differences += [f"  {line}" for line in each.last_lines[-10:]]
    show(console, costs, simulation, differences)
    return 1 if differences or any(cost.cost_s is None for cost in costs) else 0


async def _judged(
    stage: Stage,
    simulation: Simulation,
    kinds: list[Kind],
    options: argparse.Namespace,
    report: object,
) -> tuple[list[Cost], list[str]]:
    faults = plan(kinds, options.faults, options.seed)
    costs = await run(stage, simulation, faults, report)  # type: ignore[arg-type]
    return costs, await judge(stage, simulation)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    names = [kind.name for kind in KINDS]
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**31), help="drawn if unset")
    parser.add_argument("--faults", type=int, default=200, help="how many (default 200)")
    parser.add_argument("--rate", type=float, default=100.0, help="deliveries a second")
    parser.add_argument("--workers", type=int, default=2, help="that always run (default 2)")
    parser.add_argument("--kinds", nargs="+", choices=names, default=[], help="only these")
    parser.add_argument("--keep", metavar="FOLDER", help="keep data and logs here")
    return parser.parse_args()


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), console=console, disable=not console.is_terminal)


if __name__ == "__main__":
    sys.exit(main())
