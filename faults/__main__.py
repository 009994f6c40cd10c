"""`python -m faults` injects faults while deliveries continue, then checks that nothing was lost.

The command prints the seed, a table of the faults, and every difference. The table has the cost of
each fault: the time until the ledger folded again. The exit code is 1 if there is a difference or
if a limit was not kept. It is 2 if a program did not start or did not recover. All programs run on
loopback, in a temporary folder.
"""

import argparse
import asyncio
import logging
import os
import secrets
import sys
import tempfile
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Final, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cli.kafka.cluster import SIZE
from cli.kafka.distribution import EmbeddedKafkaError
from cli.run.local import kafka_cache, signals_set, sigterm_as_interrupt, until_stopped
from cli.settings import DemoSettings
from cli.simulate.simulation import Simulation
from faults.answers import Answers
from faults.injections import KINDS
from faults.judge import judge
from faults.kinds import FaultKind
from faults.limits import limits
from faults.report import WIDTH, line, show
from faults.run import Cost, plan, run, sender_options
from faults.stage import LONG, SHORT, FaultStage, StageError
from runtime.kafka.topic_looks import TopicsError

# A run never reaches this number of events, because the sending ends after the last fault.
_EVENTS: Final = 10_000_000

T = TypeVar("T")


def main() -> int:
    """Run the faults, print the result, and return the exit code."""
    options = _options()
    # The faults stop Kafka, so aiokafka logs many errors; these log records are discarded.
    logging.getLogger("aiokafka").addHandler(logging.NullHandler())
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    console.print(
        f"Seed {options.seed}; --seed {options.seed} with the same options repeats this run."
    )
    with sigterm_as_interrupt(), tempfile.TemporaryDirectory(prefix="plexy-faults-") as folder:
        try:
            return _run(options, Path(options.keep or folder), console)
        except KeyboardInterrupt:
            console.print("Interrupted; all programs are stopped.")
            return 130
        except (StageError, EmbeddedKafkaError, TopicsError) as error:
            console.print(str(error), markup=False, highlight=False)
            return 2


def _run(options: argparse.Namespace, folder: Path, console: Console) -> int:
    cache = kafka_cache(DemoSettings.from_environment(os.environ))
    pauses = SHORT if options.short_pauses else LONG
    with (
        FaultStage(
            folder,
            cache,
            options.workers,
            options.brokers,
            pauses=pauses,
            secured=options.secured,
        ) as stage,
        _progress(console) as progress,
    ):
        kinds = _possible(stage, options, console)
        answers = Answers(stage.ingest, options.slack)
        sending = sender_options(stage, options.rate)
        simulation = Simulation(options.seed, _EVENTS, sending, answers.judge)
        bar = progress.add_task("faults", total=options.faults)

        def report(cost: Cost) -> None:
            progress.advance(bar)
            progress.console.print(line(cost), markup=False, highlight=False, soft_wrap=True)

        def judging() -> None:
            progress.update(bar, description="judging")

        faults = plan(kinds, options.faults, options.seed)
        sent = run(stage, simulation, answers, faults, report)
        costs, differences = asyncio.run(_stoppable(_judged(sent, stage, simulation, judging)))
        kept = limits(stage, costs, answers, options.slack)
    show(console, simulation, costs, kept, differences)
    return 1 if differences or any(limit.broken for limit in kept) else 0


async def _judged(
    sent: Awaitable[list[Cost]],
    stage: FaultStage,
    simulation: Simulation,
    judging: Callable[[], None],
) -> tuple[list[Cost], list[str]]:
    costs = await sent
    judging()
    return costs, [*await judge(stage, simulation), *stage.findings]


async def _stoppable(work: Coroutine[Any, Any, T]) -> T:
    """Await the work; after Ctrl-C or SIGTERM, end it cleanly and raise ``KeyboardInterrupt``."""
    stop = asyncio.Event()
    with signals_set(stop):
        done = await until_stopped(work, stop)
    if done is None:
        raise KeyboardInterrupt
    return done


def _possible(stage: FaultStage, options: argparse.Namespace, console: Console) -> list[FaultKind]:
    """Return the chosen kinds that can run on this stage; print the kinds that can't."""
    possible = []
    for kind in KINDS:
        if options.kinds and kind.name not in options.kinds:
            continue
        if missing := kind.missing(stage):
            console.print(f"Left out: {kind.name}; it needs {missing}.", highlight=False)
        else:
            possible.append(kind)
    if not possible:
        raise StageError("none of the chosen kinds of fault can run on this stage")
    return possible


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    names = [kind.name for kind in KINDS]
    parser.add_argument(
        "--seed", type=int, default=secrets.randbelow(2**31), help="drawn at random if unset"
    )
    parser.add_argument("--faults", type=int, default=200, help="number of faults (default 200)")
    parser.add_argument("--rate", type=float, default=100.0, help="deliveries a second")
    parser.add_argument("--workers", type=int, default=2, help="workers that run (default 2)")
    parser.add_argument(
        "--brokers",
        type=int,
        choices=(1, SIZE),
        default=1,
        help="number of brokers (default 1); each of 3 brokers has every record",
    )
    parser.add_argument(
        "--secured",
        action="store_true",
        help="use certificates and passwords; some faults change them",
    )
    parser.add_argument("--kinds", nargs="+", choices=names, default=[], help="only these kinds")
    parser.add_argument(
        "--short-pauses", action="store_true", help="make rebalances follow each other quickly"
    )
    parser.add_argument("--slack", type=float, default=1.0, help="factor for the time limits")
    parser.add_argument("--keep", metavar="FOLDER", help="keep data and logs here")
    return parser.parse_args()


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), console=console, disable=not console.is_terminal)


if __name__ == "__main__":
    sys.exit(main())
