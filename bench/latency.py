"""`python -m bench.latency`, or `make bench-latency`: measure the latency of answers and views.

For each rate, the benchmark measures two times, which both start when a POST is scheduled. The
first time ends when the POST is acknowledged. The second time ends when an answer of
`GET /orders/{id}` first shows the event. The benchmark prints the median and the 99th percentile of
both times as a table, and writes ``build/bench-latency.json``. Ingress and one worker run with
default settings, on their own Kafka. The exit code is 1 if a delivery was refused, if an event was
not seen, or if the deliveries were not sent on time. It is 2 if a measurement failed.

    python -m bench.latency
    python -m bench.latency --rates 500 --seconds 60
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
from msgspec.structs import replace
from rich.console import Console
from rich.progress import Progress

from bench.command import exit_code_of, kafka_in_a_folder, parser_of, progress_bars
from bench.latency_report import RateResult, show, write_json
from bench.measured import PROJECT, cpu_s
from bench.open_load import LoadOutcome, LoadSettings
from bench.stage import BenchError
from cli.child import Child, start_child
from cli.kafka.process import free_port
from cli.ports import base_url
from cli.run.local import running
from cli.run.programs import Command
from cli.settings import DEVELOPMENT_SECRET
from runtime.kafka.topics import TopicSettings, ensure_topics

_LOOPBACK: Final = "127.0.0.1"
# The rate of the warm-up. In the first half minute of a broker, Java compiles the broker's code,
# which keeps one core busy.
_WARM_UP_PER_S: Final = 500.0
# The time at a new rate before the measurement begins. After this time, the change of the rate has
# no further effect.
_SETTLED_S: Final = 5.0
_SAMPLES_PER_S: Final = 10.0
# The distance between the first order numbers of two loads. No load has this many orders, so no two
# loads share an order.
_ORDERS_APART: Final = 1_000_000
_PREPARED_WITHIN_S: Final = 120.0
_LOOK_EVERY_S: Final = 0.2


def main() -> int:
    """Measure, print and write the results; return the exit code."""
    options = _options()
    return exit_code_of(partial(_run, options))


def _run(options: argparse.Namespace, console: Console) -> bool:
    with kafka_in_a_folder() as (kafka, folder), progress_bars() as progress:
        measured = list(_measure_all(kafka.bootstrap, folder, options, progress))
    show(console, measured)
    write_json(options.out, measured, options.seconds)
    return all(each.is_sound for each in measured)


def _options() -> argparse.Namespace:
    parser = parser_of("bench.latency", __doc__)
    rates = (100.0, 500.0, 1000.0)
    parser.add_argument(
        "--rates", nargs="+", type=float, default=rates, help="POSTs/s (default 100 500 1000)"
    )
    parser.add_argument("--seconds", type=float, default=30.0, help="time per rate (default 30)")
    parser.add_argument(
        "--warm-up", type=float, default=30.0, help="seconds before the first rate (default 30)"
    )
    parser.add_argument("--seed", type=int, default=1, help="seed of the recorded input")
    parser.add_argument(
        "--out", type=Path, default=Path("build/bench-latency.json"), help="the result"
    )
    return parser.parse_args()


def _measure_all(
    bootstrap: str, folder: Path, options: argparse.Namespace, progress: Progress
) -> Iterator[RateResult]:
    with installed(bootstrap, folder) as ledger:
        if options.warm_up:
            warm_up = _load_settings(ledger, 0, _WARM_UP_PER_S, 0.0, options)
            _with_bar(progress, "warming up", ledger, replace(warm_up, seconds=options.warm_up))
        for number, rate_per_s in enumerate(options.rates, 1):
            load = _load_settings(ledger, number, rate_per_s, _SETTLED_S, options)
            yield _with_bar(progress, f"{rate_per_s:,.0f} deliveries/s", ledger, load)


def _load_settings(
    ledger: "Ledger", number: int, rate_per_s: float, warm_up_s: float, options: argparse.Namespace
) -> LoadSettings:
    return LoadSettings(
        ingest_port=ledger.ingest_port,
        views_port=ledger.views_port,
        secret=DEVELOPMENT_SECRET,
        rate_per_s=rate_per_s,
        warm_up_s=warm_up_s,
        seconds=options.seconds,
        samples_per_s=_SAMPLES_PER_S,
        first_order=number * _ORDERS_APART,
        seed=options.seed,
    )


def _with_bar(progress: Progress, title: str, ledger: "Ledger", load: LoadSettings) -> RateResult:
    bar = progress.add_task(title, total=1.0)
    latency = measure(ledger, load, lambda share: progress.update(bar, completed=share))
    progress.update(bar, completed=1.0)
    return latency


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """A running ingress and a running worker."""

    ingest: Command
    worker: Command
    ingest_port: int
    views_port: int

    def cpu_s(self) -> tuple[float, float]:
        """Return the processor seconds that ingress and the worker have used."""
        return cpu_s(self.ingest.pid or 0), cpu_s(self.worker.pid or 0)


@contextmanager
def installed(bootstrap: str, folder: Path, prefix: str = "") -> Iterator[Ledger]:
    """Run an ingress and a worker with their default settings; yield when both are ready."""
    ports = free_port(), free_port()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LEDGER_")}
    environment = kept | {
        "LEDGER_KAFKA_BOOTSTRAP": bootstrap,
        "LEDGER_TOPIC_PREFIX": prefix,
        "LEDGER_DATA_DIR": str(folder / "worker"),
        "LEDGER_INGEST_PORT": str(ports[0]),
        "LEDGER_WEB_PORT": str(ports[1]),
        "LEDGER_WEBHOOK_SECRETS": DEVELOPMENT_SECRET,
    }
    asyncio.run(ensure_topics(TopicSettings.from_environment(environment)))
    ingest, worker = Command("ingest", environment), Command("worker", environment)
    probes = [
        (program, f"{base_url(_LOOPBACK, port)}/readyz")
        for program, port in zip((ingest, worker), ports, strict=True)
    ]
    with running(probes):
        yield Ledger(ingest=ingest, worker=worker, ingest_port=ports[0], views_port=ports[1])


def measure(ledger: Ledger, load: LoadSettings, report: Callable[[float], None]) -> RateResult:
    """Send one load; return its outcome, and the CPU shares of ingress and the worker."""
    ingest_before_s, worker_before_s = ledger.cpu_s()
    outcome = _send(load, report)
    ingest_s, worker_s = ledger.cpu_s()
    sent_for_s = load.warm_up_s + load.seconds
    return RateResult(
        rate_per_s=load.rate_per_s,
        outcome=outcome,
        ingest_cpu=(ingest_s - ingest_before_s) / sent_for_s,
        worker_cpu=(worker_s - worker_before_s) / sent_for_s,
    )


def _send(load: LoadSettings, report: Callable[[float], None]) -> LoadOutcome:
    """Send a load from a separate process, which never blocks, as its output goes to files."""
    with tempfile.TemporaryFile() as outcome, tempfile.TemporaryFile() as errors:
        child = start_child(
            [sys.executable, "-m", "bench.open_load", msgspec.json.encode(load).decode()],
            cwd=PROJECT,
            stdout=outcome,
            stderr=errors,
        )
        try:
            _wait(child, load.warm_up_s + load.seconds, report)
        finally:
            child.kill()
            child.wait()
        outcome.seek(0)
        errors.seek(0)
        try:
            return msgspec.json.decode(outcome.read(), type=LoadOutcome)
        except msgspec.DecodeError:
            printed = errors.read().decode(errors="replace")
            raise BenchError(
                f"the load ended with exit code {child.returncode}, but has no outcome:\n{printed}"
            ) from None


def _wait(child: Child, planned_s: float, report: Callable[[float], None]) -> None:
    began_s = time.monotonic()
    while child.poll() is None:
        passed_s = time.monotonic() - began_s
        if passed_s > planned_s + _PREPARED_WITHIN_S:
            raise BenchError(f"the load did not end within {passed_s:.0f} s")
        report(min(passed_s / planned_s, 1.0))
        time.sleep(_LOOK_EVERY_S)


if __name__ == "__main__":
    sys.exit(main())
