"""`python -m bench`: fold the same recorded input with each peer, side by side, in one run.

The benchmark prints a table and writes ``build/bench.json``. The exit code is 1 if a peer's result
differs from the result of the ledger's rules. It is 2 if a measurement failed. The benchmark starts
its own Kafka in a temporary folder. If this machine can't run a peer, the benchmark skips that peer
and says why.

    python -m bench --peers ours kafka_streams --events 100000 --repeat 1
"""

import argparse
import asyncio
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, TextColumn

from bench import report
from bench.command import count, exit_code_of, kafka_in_a_folder, parser_of, progress_bars
from bench.fold import FoldRun, Input, measure, warm_up_of
from bench.peers.table import PROGRAMS
from bench.profile import summarise
from bench.program import Peer
from bench.recording import record
from bench.stage import BROKER, BenchError, Setup


def main() -> int:
    """Measure, print and write the results; return the exit code."""
    options = _options()
    return exit_code_of(partial(_run, options))


def _run(options: argparse.Namespace, console: Console) -> bool:
    measurements = _measure_all(_runnable(options.peers), options)
    report.show(console, measurements)
    if not options.profile:
        report.write(options.out, measurements)
    else:
        for name, share in summarise(options.profile):
            console.print(f"{share:6.1%}  {name}", highlight=False)
    return not any(run.differences for run in measurements)


def _options() -> argparse.Namespace:
    parser = parser_of("bench", __doc__)
    peers = list(dict.fromkeys(program.peer for program in PROGRAMS))
    parser.add_argument("--events", type=count, default=200_000, help="events to fold")
    parser.add_argument(
        "--repeat", type=count, default=3, help="rounds; every second round is reversed"
    )
    parser.add_argument("--peers", nargs="+", choices=peers, default=peers, help="peers to measure")
    parser.add_argument("--seed", type=int, default=1, help="seed of the recorded input")
    parser.add_argument(
        "--profile",
        metavar="FILE",
        help="write our worker's stacks (py-spy); write no result, as profiling slows the worker",
    )
    parser.add_argument("--out", type=Path, default=Path("build/bench.json"), help="the result")
    return parser.parse_args()


def _runnable(peers: Sequence[str]) -> list[type[Peer]]:
    """Prepare and return the peers' programs; print which programs are skipped, and why."""
    programs = [program for program in PROGRAMS if program.peer in peers]
    for reason in dict.fromkeys(program.lacks() for program in programs):
        if reason is not None:
            print(f"Skipped: {reason}", file=sys.stderr)
    runnable = []
    for program in programs:
        if program.lacks() is None:
            try:
                program.prepare()
            except BenchError as error:
                print(f"Skipped: {error}", file=sys.stderr)
            else:
                runnable.append(program)
    return runnable


def _measure_all(programs: Sequence[type[Peer]], options: argparse.Namespace) -> list[FoldRun]:
    inputs = _inputs(programs, options)
    measurements: list[FoldRun] = []
    result = TextColumn("{task.fields[result]}")
    with kafka_in_a_folder(BROKER) as (kafka, folder), progress_bars(result) as progress:
        for program in _schedule(programs, measurements, options.repeat):
            name = f"{len(measurements)}-{program.name}"
            place = Setup(bootstrap=kafka.bootstrap, name=f"bench-{name}", folder=folder / name)
            given = inputs[program.share]
            measurements.append(_measure_one(program, place, given, progress, options))
    return measurements


def _inputs(programs: Sequence[type[Peer]], options: argparse.Namespace) -> Mapping[float, Input]:
    """Generate the deliveries once; return the input of each share (the part a program folds)."""
    deliveries = record(options.events + warm_up_of(options.events), options.seed)
    return {
        program.share: Input.of(deliveries, max(1, int(options.events * program.share)))
        for program in programs
    }


def _schedule(
    programs: Sequence[type[Peer]], measurements: Sequence[FoldRun], rounds: int
) -> Iterator[type[Peer]]:
    """Yield the programs of each round; every second round has them in reverse order.

    All programs run in the first round. After that, only the fastest program of each peer runs, and
    no program runs in more rounds than its ``rounds``.
    """
    chosen = list(programs)
    for number in range(rounds):
        yield from reversed(chosen) if number % 2 else chosen
        best = report.fastest(measurements)
        chosen = [each for each in chosen if each in best and number + 1 < each.rounds]


def _measure_one(
    program: type[Peer],
    place: Setup,
    given: Input,
    progress: Progress,
    options: argparse.Namespace,
) -> FoldRun:
    events = f"{len(given.measured):,} events"
    bar = progress.add_task(f"{program.title}, {events}", total=1.0, result="warming up")
    profile = options.profile if program.peer == "ours" else None

    def advance(share: float) -> None:
        progress.update(bar, completed=share, result="")

    run = asyncio.run(measure(program, place, given, advance, profile))
    progress.update(bar, completed=1.0, result=f"{run.rate:,.0f} events/s")
    return run


if __name__ == "__main__":
    sys.exit(main())
