"""`python -m bench.ingest`: measure ingress next to an empty, a plain and a Go handler.

The benchmark prints a table and writes the half `ingest` of `build/bench.json`. The exit code is 1
if an answer had a status of 400 or more, if a delivery got no answer, or if the log lacks an
acknowledged delivery. The exit code is 2 if a measurement failed. The benchmark starts its own
Kafka in a temporary folder, and needs `wrk`. If Go is not installed, the benchmark leaves out the
Go handler.

  python -m bench.ingest                                  three rounds, about three minutes
  python -m bench.ingest --servers ours go --repeat 1     two servers, one round
  python -m bench.ingest --servers ours --repeat 1 --profile build/ingest.folded
"""

import argparse
import asyncio
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from rich.console import Console

from bench.command import count, exit_code_of, kafka_in_a_folder, parser_of, progress_bars
from bench.ingest import report
from bench.ingest.load import require_wrk, write_bodies
from bench.ingest.run import IngestRun, Plan, measure
from bench.ingest.servers import SERVERS, Server
from bench.recording import record
from bench.results import keep
from bench.stage import Setup

# All bodies together exceed the caches of the server and of wrk, so more bodies would change
# nothing.
_BODIES: Final = 5_000


def main() -> int:
    """Measure, print and write the results; return the exit code."""
    options = _options()
    return exit_code_of(partial(_run, options))


def _run(options: argparse.Namespace, console: Console) -> bool:
    require_wrk()
    measurements = _measure_all(options, _measurable(options.servers, console))
    report.show(console, measurements, options.connections)
    keep(options.out, "ingest", report.rates(measurements), runs=report.details(measurements))
    return not any(run.faults for run in measurements)


def _options() -> argparse.Namespace:
    parser = parser_of("bench.ingest", __doc__)
    names = [server.name for server in SERVERS]
    parser.add_argument(
        "--servers", nargs="+", choices=names, default=names, help="servers to measure"
    )
    parser.add_argument(
        "--repeat", type=count, default=3, help="rounds; every second round is reversed"
    )
    parser.add_argument("--seconds", type=count, default=8, help="per run, after the warm-up")
    parser.add_argument("--warm-up", type=int, default=2, help="seconds before each run")
    parser.add_argument("--connections", type=count, default=256, help="open connections")
    parser.add_argument("--seed", type=int, default=1, help="seed of the recorded input")
    parser.add_argument("--profile", metavar="FILE", help="write our server's stacks (py-spy)")
    parser.add_argument("--out", type=Path, default=Path("build/bench.json"), help="the result")
    return parser.parse_args()


def _measurable(names: Sequence[str], console: Console) -> list[type[Server]]:
    """Return the servers that can be measured here; print why the others can't."""
    able = []
    for server in SERVERS:
        reason = server.prepare() if server.name in names else None
        if reason:
            console.print(reason, highlight=False)
        elif server.name in names:
            able.append(server)
    return able


def _measure_all(options: argparse.Namespace, servers: Sequence[type[Server]]) -> list[IngestRun]:
    measurements = []
    with kafka_in_a_folder() as (kafka, folder), progress_bars() as progress:
        plan = Plan(
            bodies=folder / "bodies",
            connections=options.connections,
            seconds=options.seconds,
            warm_up_s=options.warm_up,
        )
        write_bodies(plan.bodies, record(_BODIES, options.seed))
        bar = progress.add_task("", total=len(servers) * options.repeat)
        for number, server in enumerate(_schedule(servers, options.repeat)):
            progress.update(bar, description=server.title)
            name = f"ingest-{number}-{server.name.replace('_', '-')}"
            place = Setup(bootstrap=kafka.bootstrap, name=name, folder=folder / name)
            profile = options.profile if server.name == "ours" else None
            measurements.append(asyncio.run(measure(server, place, plan, profile)))
            progress.advance(bar)
    return measurements


def _schedule(servers: Sequence[type[Server]], repeat: int) -> Iterator[type[Server]]:
    """Yield the servers of each round; every second round has them in reverse order."""
    for number in range(repeat):
        yield from reversed(servers) if number % 2 else servers


if __name__ == "__main__":
    sys.exit(main())
