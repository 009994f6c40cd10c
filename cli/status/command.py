"""Shows whether all is well, as tables or as JSON: the command ``status``.

New records are not a problem by themselves. A partition is behind only if a record is still not
folded ``within_s`` seconds after ``status`` first saw the record.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple

import msgspec
import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cli.ports import base_url
from cli.printing import counted, plain
from cli.settings import StatusSettings
from cli.status.looks import Address, HopLag, Look, ProgramStatus, StatusProblem, look
from runtime.addresses import RUN_METRICS_PORT

_LOOK_AGAIN_S: Final = 0.5
_MOST_PARTITIONS: Final = 4


class StatusOptions(msgspec.Struct, frozen=True):
    """The options of ``status``; ``within_s`` is how long the workers may take to fold records."""

    ingest_url: str | None = None
    metrics_url: str | None = None
    worker_urls: tuple[str, ...] = ()
    within_s: float = 5.0
    watch: bool = False
    every_s: float = 2.0
    as_json: bool = False


class _Target(NamedTuple):
    end: int
    since_s: float


class Behind:
    """Finds the partitions that are still behind after several looks at their offsets."""

    def __init__(self, within_s: float) -> None:
        self._within_s = within_s
        self._targets: dict[tuple[str, int], _Target] = {}

    def judge(self, hops: Sequence[HopLag], now_s: float) -> tuple[list[StatusProblem], bool]:
        """Return a problem for each partition that is behind.

        The second value is true if other partitions may also be behind.
        """
        problems, undecided = [], False
        for hop in hops:
            for at in hop.partitions:
                place = (hop.topic, at.partition)
                target = self._targets.get(place)
                if target is None or at.committed >= target.end:
                    reached = target is not None
                    self._targets[place] = _Target(at.end, now_s)
                    undecided = undecided or (not reached and at.committed < at.end)
                elif now_s - target.since_s >= self._within_s:
                    detail = (
                        f"{hop.topic} partition {at.partition} has "
                        f"{counted(at.records, 'record')} that the workers have not folded; the "
                        f"oldest has waited for {now_s - target.since_s:.0f} s: check that a "
                        "worker runs, and read the worker's log"
                    )
                    problems.append(StatusProblem("behind", hop.hop, detail))
                else:
                    undecided = True
        return problems, undecided


def status(environment: Mapping[str, str], options: StatusOptions, console: Console) -> bool:
    """Show the state once, or until Ctrl-C; return whether all was well at the last look."""
    settings = StatusSettings.from_environment(environment)
    asked = list(addresses(settings, options))
    if not options.watch:
        seen = asyncio.run(_look_once(settings, asked, options.within_s))
        _show(seen, options, console)
        return seen.well
    last: list[Look] = []
    # The user ends a watch with Ctrl-C.
    with contextlib.suppress(KeyboardInterrupt), _showing(options, console) as show:
        asyncio.run(_watch(settings, asked, options, show, last))
    return bool(last) and last[-1].well


async def _look_once(settings: StatusSettings, asked: Sequence[Address], within_s: float) -> Look:
    """Look until it is clear whether a partition is behind."""
    behind = Behind(within_s)
    while True:
        seen = await look(settings, asked)
        problems, undecided = behind.judge(seen.hops, time.monotonic())
        if problems or not undecided:
            return Look(seen.hops, seen.programs, [*seen.problems, *problems])
        await asyncio.sleep(min(_LOOK_AGAIN_S, within_s))


async def _watch(
    settings: StatusSettings,
    asked: Sequence[Address],
    options: StatusOptions,
    show: Callable[[Look], None],
    last: list[Look],
) -> None:
    """Look forever; after an interrupt, ``last`` still has the most recent look."""
    behind = Behind(options.within_s)
    while True:
        seen = await look(settings, asked)
        problems, _ = behind.judge(seen.hops, time.monotonic())
        last[:] = [Look(seen.hops, seen.programs, [*seen.problems, *problems])]
        show(last[0])
        await asyncio.sleep(options.every_s)


def addresses(settings: StatusSettings, options: StatusOptions) -> Iterator[Address]:
    """Yield each program's address from the options, or from the settings if no option has it."""
    ingest = options.ingest_url or base_url(settings.ingest_host, settings.ingest_port)
    port = settings.ingest_metrics_port or RUN_METRICS_PORT
    metrics = options.metrics_url or f"{base_url(settings.ingest_metrics_host, port)}/metrics"
    yield Address("ingest", ingest.rstrip("/"), metrics)
    token = settings.api_token.reveal() if settings.api_token else ""
    workers = options.worker_urls or (base_url(settings.web_bind, settings.web_port),)
    for url in workers:
        base = url.rstrip("/")
        yield Address("worker", base, f"{base}/metrics", token)


@contextlib.contextmanager
def _showing(options: StatusOptions, console: Console) -> Iterator[Callable[[Look], None]]:
    """Show each look; on a terminal, a look replaces the previous look."""
    if options.as_json or not console.is_terminal:
        yield partial(_show, options=options, console=console)
        return
    with Live(console=console, auto_refresh=False) as live:
        yield lambda seen: live.update(render(seen), refresh=True)


def _show(seen: Look, options: StatusOptions, console: Console) -> None:
    if options.as_json:
        typer.echo(encode(seen))
    else:
        console.print(render(seen))


def encode(seen: Look) -> str:
    """Return a look as one line of JSON."""
    hops = [
        {
            **msgspec.structs.asdict(hop),
            "partitions": [
                {**each._asdict(), "lag_records": each.records} for each in hop.partitions
            ],
        }
        for hop in seen.hops
    ]
    document = {"well": seen.well, **msgspec.structs.asdict(seen), "hops": hops}
    return msgspec.json.encode(document).decode()


def render(seen: Look) -> RenderableType:
    """Return a look as tables."""
    hops = Table("hop", "topic", "not folded", "by partition")
    for hop in seen.hops:
        hops.add_row(hop.hop, hop.topic, f"{hop.lag_records:,}", _worst(hop))
    programs = Table("program", "address", "ready", "numbers")
    for program in seen.programs:
        ready = Text("yes", "green") if program.ready else Text("no", "red")
        programs.add_row(program.name, Text(plain(program.url)), ready, Text(_numbers(program)))
    problems = [
        Text(plain(f"{each.code}  {each.subject}: {each.detail}"), "red") for each in seen.problems
    ]
    return Group(hops, programs, *(problems or [Text("all is well", "green")]))


def _worst(hop: HopLag) -> str:
    behind = sorted((each for each in hop.partitions if each.records), key=lambda p: -p.records)
    listed = ", ".join(f"{each.partition}: {each.records:,}" for each in behind[:_MOST_PARTITIONS])
    return listed + (", …" if len(behind) > _MOST_PARTITIONS else "")


def _numbers(program: ProgramStatus) -> str:
    """Return a program's non-zero numbers, sorted by name."""
    if program.numbers is None:
        return "no metrics"
    shown = [(name, number) for name, number in sorted(program.numbers.items()) if number]
    return plain(", ".join(f"{name} {number:,.10g}" for name, number in shown))
