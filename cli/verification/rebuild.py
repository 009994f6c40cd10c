"""`plexy-ledger rebuild`: builds a new version of everything derived from the log of record.

A separate worker runs alongside the usual workers, and fills the new version's topics and tables.
Then the command prints how the new version differs from the old version and from the log, and how
to switch to the new version. The command never writes to the old version.

The folder of the rebuild exists until the new version is complete. So the command can distinguish
an unfinished version from a complete version, and the same command continues an unfinished version.
"""

import asyncio
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
from rich.console import Console

from cli.errors import NotFoldedError, NotRebuiltError, WrongOptionError
from cli.kafka.process import free_port
from cli.printing import counting, line
from cli.run.local import sigterm_as_interrupt
from cli.run.programs import Command, stop_all
from cli.topics.lag import Lag, Report, progress_bar
from cli.topics.ledger_reader import LedgerReader, Offsets, open_reader, sizes
from cli.verification.auditor import Auditor, holdings
from cli.verification.comparer import Comparer
from cli.verification.rebuilt import RebuildOutcome, show_outcome
from ledger.verification.truth import Truth
from processors.settings import WorkerSettings
from runtime.folders import private_folder
from runtime.kafka.partitions import partition_for
from runtime.kafka.topics import ensure_topics, find_leftovers

# A worker that makes no progress for this long counts as stalled. A broker restarts within seconds,
# but a worker must recover its tables before it folds.
_STALLED_AFTER_S: Final = 300.0
_FOREVER_S: Final = float("inf")


class RebuildOptions(msgspec.Struct, frozen=True):
    """The version to build, and how long the old version's workers may take to catch up."""

    to: int | None = None
    wait_s: float = 60.0


class _Plan(msgspec.Struct, frozen=True):
    """The settings of the old and the new version, and the folder of the new version's worker."""

    old: WorkerSettings
    new: WorkerSettings

    @property
    def folder(self) -> Path:
        """The folder of the worker that rebuilds; removed as soon as the version is complete."""
        return self.old.data_dir / f"rebuild-v{self.new.version}"


def rebuild(environment: Mapping[str, str], options: RebuildOptions, console: Console) -> bool:
    """Build a new version; return whether it is complete and equal to the old version."""
    plan = _plan(WorkerSettings.from_environment(environment), options)
    asyncio.run(_prepare(plan, console))
    with sigterm_as_interrupt():
        try:
            with _worker(plan, environment) as worker:
                asyncio.run(_fold(plan, worker, console))
                outcome = asyncio.run(_compare(plan, worker, options, console))
        except KeyboardInterrupt:
            line(console, "Interrupted. Nothing is lost: the same command continues from here.")
            raise
    # The folder of an incomplete version stays, so that the same command can continue.
    if outcome.is_whole:
        _keep_tables(plan)
    show_outcome(plan.old, plan.new, outcome, console)
    if not outcome.is_whole:
        text = (
            f"The new version's worker left its tables and its log in {plan.folder}. Repeat the "
            "command to check the version again."
        )
        line(console, text)
    return outcome.is_equal


def _plan(old: WorkerSettings, options: RebuildOptions) -> _Plan:
    to = old.version + 1 if options.to is None else options.to
    if to <= old.version:
        raise WrongOptionError(
            f"--to {to} is not above the version in use, LEDGER_VERSION={old.version}: an existing "
            "version is never overwritten"
        )
    return _Plan(old, old.of_version(to))


async def _prepare(plan: _Plan, console: Console) -> None:
    """Refuse a version that can't be built; otherwise create its folder, then its topics."""
    leftovers = await find_leftovers(plan.new)
    log, number = plan.new.names.webhooks, plan.new.version
    if log in leftovers.missing:
        raise NotRebuiltError(
            f"there is no log of record {log}, so there is nothing to fold. Check "
            "LEDGER_TOPIC_PREFIX; restore a lost log from its backup"
        )
    resumes = plan.folder.exists()
    if leftovers.begun and not resumes:
        raise NotRebuiltError(
            f"version {number} exists already. Switch to it with LEDGER_VERSION={number}, or "
            f"make another version with `--to {number + 1}`. An interrupted rebuild can continue "
            f"only from its folder, and {plan.folder} does not exist"
        )
    private_folder(plan.folder)
    await ensure_topics(plan.new)
    verb = "Continuing" if resumes else "Making"
    line(console, f"{verb} version {number}, with the group {plan.new.group_id}")


@contextmanager
def _worker(plan: _Plan, environment: Mapping[str, str]) -> Iterator[Command]:
    """Run a worker of the new version; stop it after the block."""
    ours = {
        "LEDGER_VERSION": str(plan.new.version),
        "LEDGER_DATA_DIR": str(plan.folder.absolute()),
        "LEDGER_WEB_BIND": "127.0.0.1",
        "LEDGER_WEB_HOST": "127.0.0.1",
        "LEDGER_WEB_PORT": str(free_port()),
        "LEDGER_LOG_FORMAT": "json",
        # The deliveries were traced when they arrived, so the rebuild does not trace them again.
        "LEDGER_TRACES": "off",
    }
    with (plan.folder / "worker.log").open("a", buffering=1) as log:
        command = Command("worker", {**environment, **ours}, lambda line: print(line, file=log))
        try:
            command.start()
            yield command
        finally:
            stop_all([command])


def _watching(worker: Command, report: Report) -> Report:
    """Return a ``Report`` that passes each lag to ``report`` and also checks the worker.

    The returned function raises ``ProgramEndedError`` if the worker has ended, and
    ``NotFoldedError`` if the worker makes no progress.
    """
    last, since_s = Lag("", 0, 0), time.monotonic()

    def watch(lag: Lag) -> None:
        nonlocal last, since_s
        worker.check_alive()
        report(lag)
        if (lag.topic, lag.done) != (last.topic, last.done):
            last, since_s = lag, time.monotonic()
        elif time.monotonic() - since_s > _STALLED_AFTER_S:
            lines = "\n".join(f"  {each}" for each in worker.last_lines)
            raise NotFoldedError(
                f"the worker has folded nothing for {_STALLED_AFTER_S:.0f} s, and is at "
                f"{lag.done} of {lag.total} records of {lag.topic}. Its last lines:\n{lines}"
            )

    return watch


async def _fold(plan: _Plan, worker: Command, console: Console) -> None:
    """Wait until the new version has folded the log up to its current end."""
    began_s = time.monotonic()
    async with open_reader(plan.new) as reader:
        before = sum((await reader.committed(plan.new.names.webhooks)).values())
        with progress_bar(console) as report:
            settled = await reader.settle(_FOREVER_S, _watching(worker, report))
    took_s, records = time.monotonic() - began_s, sum(settled.values()) - before
    rate = records / max(took_s, 0.001)
    line(console, f"Folded {records:,} records of the log in {took_s:.1f} s ({rate:,.0f}/s)")


async def _compare(
    plan: _Plan, worker: Command, options: RebuildOptions, console: Console
) -> RebuildOutcome:
    """Compare both versions with the log, then with each other, while their workers run."""
    partition_of = partial(partition_for, partitions=plan.new.partitions)
    truth = Truth(
        plan.new.reading,
        None,
        partition_of,
        plan.new.forget_after_ms,
        plan.new.enforced_trust,
    )
    watch = _watching(worker, lambda _lag: None)
    async with AsyncExitStack() as stack:
        new = await stack.enter_async_context(open_reader(plan.new))
        lost = (await find_leftovers(plan.old)).missing
        if lost:
            settled = await new.settle(_FOREVER_S, watch)
            with counting(console, await _records(new)) as heard:
                findings = await Auditor(new, truth, heard).audit(settled)
            lacking = f"version {plan.old.version} can't be compared: it has no {', '.join(lost)}"
            return RebuildOutcome(log=tuple(truth.faults), new=findings, lacking=lacking)
        old = await stack.enter_async_context(open_reader(plan.old))
        old_settled, lacking = await _settle_old(old, options.wait_s, console)
        settled = await new.settle(_FOREVER_S, watch)
        with counting(console, await _records(new, old)) as heard:
            findings = await Auditor(new, truth, heard).audit(settled)
            old_findings = await Auditor(old, truth, heard).audit(old_settled)
            both = {p: min(end, old_settled.get(p, 0)) for p, end in settled.items()}
            comparison = await Comparer(old, new, truth, heard).compare(both)
        return RebuildOutcome(
            log=tuple(truth.faults),
            new=findings,
            old=old_findings,
            comparison=comparison,
            lacking=lacking,
        )


async def _settle_old(reader: LedgerReader, wait_s: float, console: Console) -> tuple[Offsets, str]:
    """Return the offsets that the old version has folded, and the reason if it lags behind."""
    try:
        with progress_bar(console) as report:
            return await reader.settle(wait_s, report), ""
    except NotFoldedError as error:
        return await reader.folded(), f"version {reader.names.topics.version} is behind: {error}"


async def _records(*readers: LedgerReader) -> dict[str, int]:
    """Count the records to read from each topic; for two versions, most topics are read twice."""
    log = readers[0].names.topics.webhooks
    totals = {log: sizes(await readers[0].begins(log), await readers[0].ends(log))}
    for reader in readers:
        names = [holding.topic for holding in holdings(reader.names)]
        for name in (*names, reader.names.topics.entries):
            size = sizes(await reader.begins(name), await reader.ends(name))
            totals[name] = len(readers) * size
    return totals


def _keep_tables(plan: _Plan) -> None:
    """Move the new tables into the worker's LEDGER_DATA_DIR; delete the rebuild's folder."""
    for tables in (plan.folder / "tables").glob("*/*@*"):
        home = plan.old.data_dir / tables.relative_to(plan.folder)
        # If this folder exists already, a worker may be using the tables in it.
        if not home.exists():
            private_folder(home.parent)
            tables.rename(home)
    shutil.rmtree(plan.folder)
