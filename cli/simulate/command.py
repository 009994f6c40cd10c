"""The command ``simulate`` runs a virtual Plexy against an ingress, and checks the orders.

The command prints progress and a report, and writes the report as JSON if a file is given. The exit
code is 0 if everything is as expected, 1 if an order differs or an event is not acknowledged, and
130 after an interrupt.
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

from cli.errors import FAILED, WrongOptionError
from cli.notifications import PAY_PATH
from cli.ports import base_url
from cli.run.local import signals_set, until_stopped
from cli.settings import DEVELOPMENT_SECRET, WEBHOOK_PATH, SimulateSettings
from cli.simulate.check import Check
from cli.simulate.delivery import SenderOptions
from cli.simulate.report import (
    LedgerCheck,
    Report,
    conclusions,
    figures_table,
    latency_table,
    ledger_check,
    report_of,
    totals_table,
)
from cli.simulate.simulation import Simulation
from cli.simulate.stories import Dialects

T = TypeVar("T")

_INTERRUPTED: Final = 130
_SHOW_EVERY_S: Final = 0.2
# If there is no terminal, a line with the progress and the failures is printed this often.
_PRINT_EVERY_S: Final = 10.0


class SimulateOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The command's options; the settings supply ``url`` and ``views_urls`` if they are missing."""

    seed: int | None
    events: int
    rate_per_s: float
    check: bool
    check_within_s: float
    url: str | None
    views_urls: tuple[str, ...]
    time_scale: float
    concurrency: int
    dialects: str = "sdk"
    rules: str = "seed"
    json_file: Path | None


def simulate(options: SimulateOptions, environment: Mapping[str, str], console: Console) -> int:
    """Run one simulation and show it; return the exit code."""
    settings = SimulateSettings.from_environment(environment)
    if options.json_file:
        # If the file can't be written, the user must learn this now, not after an hour.
        options.json_file.touch()
    report = asyncio.run(_run(options, settings, console))
    _show(report, options, console, settings.minor_units.digits_of)
    if options.json_file:
        options.json_file.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    if report.interrupted:
        return _INTERRUPTED
    return 0 if report.is_good else FAILED


async def _run(options: SimulateOptions, settings: SimulateSettings, console: Console) -> Report:
    # The default is a new seed. If the seed were the same as in an earlier run, the ledger would
    # ignore all events as duplicates.
    seed = secrets.randbelow(2**31) if options.seed is None else options.seed
    simulation = Simulation(seed, options.events, _sender_options(options, settings))
    console.print(f"Seed {seed}, to {simulation.options.url}", highlight=False, soft_wrap=True)
    stop = asyncio.Event()
    checked = None
    with signals_set(stop):
        await _with_progress(simulation.run(stop), _Sending(simulation), console)
        if options.check and not stop.is_set():
            checked = await _check(simulation, options, settings, console, stop)
    return report_of(simulation, interrupted=stop.is_set(), checked=checked)


def _sender_options(options: SimulateOptions, settings: SimulateSettings) -> SenderOptions:
    url = options.url or base_url(settings.ingest_host, settings.ingest_port) + WEBHOOK_PATH
    dialects = _dialects(options.dialects, settings)
    given = tuple(secret.reveal() for secret in settings.webhook_secrets)
    return SenderOptions(
        url=url,
        secrets=given or (DEVELOPMENT_SECRET,),
        pay_url=url.removesuffix(WEBHOOK_PATH) + PAY_PATH,
        tokens=tuple(token.reveal() for token in settings.pay_tokens),
        dialects=dialects,
        form=settings.signed_form,
        tolerance_s=settings.signature_tolerance_s,
        rate_per_s=options.rate_per_s,
        time_scale=options.time_scale,
        concurrency=options.concurrency,
        rules=options.rules,
    )


def _dialects(text: str, settings: SimulateSettings) -> Dialects:
    """Read ``--dialects``, for example ``sdk,pay``."""
    names = {name.strip() for name in text.split(",")}
    if not names or not names <= {"sdk", "pay"}:
        raise WrongOptionError(f"--dialects: expected sdk, pay or sdk,pay, got {text!r:.80}")
    if "pay" not in names:
        return Dialects()
    if not settings.pay_tokens or settings.pay_amounts is None:
        raise WrongOptionError(
            "--dialects pay needs the token and the unit of the Pay API: set LEDGER_PAY_TOKENS and "
            "LEDGER_PAY_AMOUNTS to the values of ingress"
        )
    return Dialects(sdk="sdk" in names, pay=settings.pay_amounts)


async def _check(
    simulation: Simulation,
    options: SimulateOptions,
    settings: SimulateSettings,
    console: Console,
    stop: asyncio.Event,
) -> LedgerCheck | None:
    """Compare all orders with the expected orders; return ``None`` if the check is stopped."""
    foretold = simulation.orders()
    check = Check(foretold, options.concurrency)
    urls = options.views_urls or (base_url(settings.web_bind, settings.web_port),)
    token = settings.api_token.reveal() if settings.api_token else None
    work = until_stopped(check.run(urls, token, options.check_within_s), stop)
    found = await _with_progress(work, _Checking(check), console)
    return None if found is None else ledger_check(foretold, found, simulation.undecided())


class _Sending:
    """The progress of sending the events."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self.total = simulation.events

    def done(self) -> int:
        return len(self._simulation.acknowledged)

    def __str__(self) -> str:
        tally, owed = self._simulation.tally, len(self._simulation.owed)
        failures = (tally.refused + tally.unanswered).most_common(3)
        shown = [f"{name} x {count}" for name, count in failures]
        return "  ".join(["acknowledged", f"not acknowledged {owed}", *shown])


class _Checking:
    """The progress of the check."""

    def __init__(self, check: Check) -> None:
        self._check = check
        self.total = check.total

    def done(self) -> int:
        return self._check.settled

    def __str__(self) -> str:
        return "orders as expected"


async def _with_progress(
    work: Coroutine[Any, Any, T], progress: _Sending | _Checking, console: Console
) -> T:
    """Await the work, and show its progress: a bar on a terminal, otherwise lines."""
    show = _show_bar if console.is_terminal else _print_lines
    showing = asyncio.create_task(show(progress, console))
    try:
        return await work
    finally:
        showing.cancel()
        with suppress(asyncio.CancelledError):
            await showing


async def _show_bar(progress: _Sending | _Checking, console: Console) -> None:
    # The problem code in an answer may contain brackets, which Rich would read as markup.
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}", markup=False))
    with Progress(TimeElapsedColumn(), *columns, console=console) as bars:
        bar = bars.add_task(str(progress), total=progress.total)
        try:
            while True:
                bars.update(bar, completed=progress.done(), description=str(progress))
                await asyncio.sleep(_SHOW_EVERY_S)
        finally:
            bars.update(bar, completed=progress.done(), description=str(progress))


async def _print_lines(progress: _Sending | _Checking, console: Console) -> None:
    while True:
        await asyncio.sleep(_PRINT_EVERY_S)
        line = f"{progress.done()} of {progress.total} {progress}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _show(
    report: Report, options: SimulateOptions, console: Console, digits_of: Mapping[str, int]
) -> None:
    console.print(figures_table(report))
    console.print(latency_table(report.latency))
    if report.checked:
        console.print(totals_table(report.checked, digits_of))
    for line in conclusions(report):
        console.print(line, soft_wrap=True)
    again = (
        f"To repeat the run: --seed {report.seed} --events {report.events} "
        f"--dialects {options.dialects} --rules {options.rules}"
    )
    console.print(f"The run took {report.took_s:.1f} s. {again}", highlight=False, soft_wrap=True)
