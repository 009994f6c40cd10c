"""The command ``simulate``: a virtual Plexy against an ingress, and a check of what came of it.

In: options and the environment. Out: progress and the report on the console, the report as JSON if
a file is named, and an exit code: 0 all is as expected, 1 an order differs, 130 interrupted.
"""

import asyncio
import secrets
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cli.errors import FAILED
from cli.ports import base_url
from cli.run.local import signals_set, until_stopped
from cli.settings import DEVELOPMENT_SECRET, WEBHOOK_PATH, SimulateSettings
from cli.simulate.check import Check
from cli.simulate.delivery import SenderOptions
from cli.simulate.report import (
    Checked,
    Report,
    checked_of,
    conclusions,
    figures_table,
    latency_table,
    report_of,
    totals_table,
)
from cli.simulate.simulation import Simulation

T = TypeVar("T")

_INTERRUPTED: Final = 130
_SHOW_EVERY_S: Final = 0.2
# Without a terminal, a line this often says that it still goes on, and what is in the way.
_SAY_EVERY_S: Final = 10.0


class SimulateOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The command's options; ``None`` and empty where the settings decide."""

    seed: int | None
    events: int
    rate_per_s: float
    check: bool
    check_within_s: float
    url: str | None
    views_urls: tuple[str, ...]
    time_scale: float
    concurrency: int
    json_file: Path | None


def simulate(options: SimulateOptions, environment: Mapping[str, str], console: Console) -> int:
    """Run one simulation and show it; return the exit code."""
    settings = SimulateSettings.from_environment(environment)
    if options.json_file:
        # Better found out now than after an hour.
        options.json_file.touch()
    report = asyncio.run(_run(options, settings, console))
    _show(report, console)
    if options.json_file:
        options.json_file.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    if report.interrupted:
        return _INTERRUPTED
    return 0 if report.is_good else FAILED


async def _run(options: SimulateOptions, settings: SimulateSettings, console: Console) -> Report:
    # Not one that was run before: its events would all be known already.
    seed = secrets.randbelow(2**31) if options.seed is None else options.seed
    simulation = Simulation(seed, options.events, _sender_options(options, settings))
    console.print(f"Seed {seed}, to {simulation.options.url}", highlight=False, soft_wrap=True)
    stop = asyncio.Event()
    checked = None
    with signals_set(stop):
        await _watched(simulation.run(stop), _Sending(simulation), console)
        if options.check and not stop.is_set():
            checked = await _check(simulation, options, settings, console, stop)
    return report_of(simulation, interrupted=stop.is_set(), checked=checked)


def _sender_options(options: SimulateOptions, settings: SimulateSettings) -> SenderOptions:
    url = options.url or base_url(settings.ingest_host, settings.ingest_port) + WEBHOOK_PATH
    given = tuple(secret.reveal() for secret in settings.webhook_secrets)
    return SenderOptions(
        url=url,
        secrets=given or (DEVELOPMENT_SECRET,),
        form=settings.signed_form,
        tolerance_s=settings.signature_tolerance_s,
        rate_per_s=options.rate_per_s,
        time_scale=options.time_scale,
        concurrency=options.concurrency,
    )


async def _check(
    simulation: Simulation,
    options: SimulateOptions,
    settings: SimulateSettings,
    console: Console,
    stop: asyncio.Event,
) -> Checked | None:
    """Compare every order; ``None`` if it was stopped before the end."""
    foretold = simulation.orders()
    check = Check(foretold, options.concurrency)
    urls = options.views_urls or (base_url(settings.web_bind, settings.web_port),)
    token = settings.api_token.reveal() if settings.api_token else None
    work = until_stopped(check.run(urls, token, options.check_within_s), stop)
    found = await _watched(work, _Checking(check), console)
    return None if found is None else checked_of(foretold, found, simulation.undecided())


class _Sending:
    """How far the sending is."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self.total = simulation.events

    def done(self) -> int:
        return len(self._simulation.acknowledged)

    def __str__(self) -> str:
        tally, owed = self._simulation.tally, len(self._simulation.owed)
        trouble = (tally.refused + tally.unanswered).most_common(3)
        return "  ".join(
            ["acknowledged", f"owed {owed}", *(f"{name} x {count}" for name, count in trouble)]
        )


class _Checking:
    """How far the check is."""

    def __init__(self, check: Check) -> None:
        self._check = check
        self.total = check.total

    def done(self) -> int:
        return self._check.settled

    def __str__(self) -> str:
        return "orders as expected"


async def _watched(
    work: Coroutine[Any, Any, T], stage: _Sending | _Checking, console: Console
) -> T:
    """Show how far it is: a bar on a terminal, else a line now and then."""
    show = _bar if console.is_terminal else _lines
    showing = asyncio.create_task(show(stage, console))
    try:
        return await work
    finally:
        showing.cancel()
        with suppress(asyncio.CancelledError):
            await showing


async def _bar(stage: _Sending | _Checking, console: Console) -> None:
    # What came from outside may hold brackets: nothing here is markup.
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}", markup=False))
    with Progress(TimeElapsedColumn(), *columns, console=console) as bars:
        bar = bars.add_task(str(stage), total=stage.total)
        try:
            while True:
                bars.update(bar, completed=stage.done(), description=str(stage))
                await asyncio.sleep(_SHOW_EVERY_S)
        finally:
            bars.update(bar, completed=stage.done(), description=str(stage))


async def _lines(stage: _Sending | _Checking, console: Console) -> None:
    while True:
        await asyncio.sleep(_SAY_EVERY_S)
        line = f"{stage.done()} of {stage.total} {stage}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _show(report: Report, console: Console) -> None:
    console.print(figures_table(report))
    console.print(latency_table(report.latency))
    if report.checked:
        console.print(totals_table(report.checked))
    for line in conclusions(report):
        console.print(line, soft_wrap=True)
    again = f"The same again: --seed {report.seed} --events {report.events}"
    console.print(f"It took {report.took_s:.1f} s. {again}", highlight=False, soft_wrap=True)
