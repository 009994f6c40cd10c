"""The one command, ``plexy-ledger``: what a person types, and how errors are shown.

In: arguments and the environment. Out: an exit code: 0 done, 1 failed, 2 a wrong argument or
setting, 130 interrupted. Never: a traceback for what a person can put right, and no rule or work of
its own: each command reads settings and calls one function.

What a command needs is imported when it runs: Faust alone takes longer than ``--help`` may.
"""

import logging
import os
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn, TextIO

import typer
from typer.core import TyperCommand

from cli import completion
from cli.accounting import Format
from cli.errors import FAILED, exit_code
from ledger.rejections import Reason

_WIDTH_WITHOUT_TERMINAL: Final = 130


def _first_word(ctx: Any) -> str:
    """Return what follows `plexy-ledger`: the commands of a group read the same settings."""
    while ctx.parent is not None and ctx.parent.parent is not None:
        ctx = ctx.parent
    return str(ctx.info_name)


class _Command(TyperCommand):
    """A command whose help ends with examples and with the settings that it reads."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples as they are, and the settings from the classes that describe them."""
        from cli.settings_table import variables

        with formatter.section("Examples" if "\n" in (self.epilog or "") else "Example"):
            # Unwrapped: a line that is broken can't be pasted.
            for example in (self.epilog or "").splitlines():
                formatter.write(f"  {example}\n")
        with formatter.section("Settings, from the environment"):
            names = variables(_first_word(ctx))
            formatter.write_text(", ".join(names) if names else "none")
        if names:
            formatter.write_paragraph()
            formatter.write_text("`plexy-ledger settings` says what each one means.")


app = typer.Typer(
    name="plexy-ledger",
    help="An event-sourced payment ledger on Kafka: Plexy's webhooks in, provable order state out.",
    epilog="Try it: plexy-ledger demo",
    no_args_is_help=True,
    # Plain help: examples stay on one line each, so that they can be copied.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)


rejected = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(rejected, name="rejected")


def _command(
    *examples: str, group: typer.Typer = app, name: str | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Declare a command, with lines that can be pasted and work."""
    return group.command(name, cls=_Command, epilog="\n".join(examples))


@rejected.callback()
def _rejected() -> None:
    """List, show and retry what was kept and is not counted."""


def _width(stream: TextIO | None = None) -> int | None:
    """Return how wide tables are: as the terminal, or enough for them in a file or a pipe."""
    return None if (stream or sys.stdout).isatty() else _WIDTH_WITHOUT_TERMINAL


def main() -> NoReturn:
    """Run the command that the arguments name; ends the process."""
    # Kafka's client logs what it then raises, and a program without logs of its own prints it.
    logging.getLogger("aiokafka").addHandler(logging.NullHandler())
    try:
        app(prog_name="plexy-ledger")
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        code = exit_code(error)
        if code is None:
            raise
        typer.echo(f"plexy-ledger: {error}", err=True)
        sys.exit(code)
    sys.exit(0)


@_command("plexy-ledger run", "LEDGER_DATA_DIR=/tmp/ledger plexy-ledger run")
def run() -> None:
    """Run Kafka, an ingress and a worker, until Ctrl-C.

    Kafka is an embedded one, unless LEDGER_KAFKA_BOOTSTRAP names another. A program that dies is
    started again. Prints the addresses, and a `curl` line that sends a signed event.
    """
    from cli.run import run as run_all

    run_all(os.environ)


@_command("plexy-ledger demo")
def demo(
    expected: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="compare with this file instead"),
    ] = None,
) -> None:
    """Run a sample through a real Kafka, and check the outcome.

    Delivers webhooks over HTTP to an ingress, lets a worker fold them, and shows each order, what
    was refused and what was rejected. The exit code is 0 only if all of it is as written down
    beforehand. Everything is on free ports and in a temporary folder, and is stopped at the end.
    """
    from rich.console import Console

    from cli.demo import demo as show

    if not show(os.environ, expected, Console(width=_width())):
        raise typer.Exit(FAILED)


@_command("LEDGER_KAFKA_PORT=29092 plexy-ledger kafka", "plexy-ledger kafka --brokers 3")
def kafka(
    brokers: Annotated[
        int,
        typer.Option(
            min=1,
            help="1, or 3 that replicate each other, on ports in a row",
            autocompletion=completion.brokers,
        ),
    ] = 1,
) -> None:
    """Run the embedded Kafka alone, until Ctrl-C.

    Of three brokers any one may be killed, and its disk emptied (its folder `data` deleted): it is
    started again after 5 s, and gets what it lacks from the others.
    """
    from cli.broker import run_broker
    from cli.settings import BrokerSettings

    run_broker(BrokerSettings.from_environment(os.environ), brokers)


@_command("plexy-ledger topics", "plexy-ledger topics --check")
def topics(
    check: Annotated[bool, typer.Option("--check", help="create nothing, only check")] = False,
) -> None:
    """Create the missing topics, and check the others."""
    import asyncio

    from runtime.topics import TopicSettings, ensure_topics

    settings = TopicSettings.from_environment(os.environ)
    report = asyncio.run(ensure_topics(settings, create=not check))
    for name in report.created:
        typer.echo(f"created  {name}")
    for name in report.found:
        typer.echo(f"found    {name}")


@_command("LEDGER_WEBHOOK_SECRETS=whsec_development LEDGER_INGEST_PORT=8001 plexy-ledger ingest")
def ingest() -> None:
    """Run an ingress: webhooks over HTTP into Kafka."""
    from ingest.server import serve
    from ingest.settings import IngestSettings

    serve(IngestSettings.from_environment(os.environ))


@_command("LEDGER_DATA_DIR=.ledger-2 LEDGER_WEB_PORT=6067 plexy-ledger worker")
def worker() -> None:
    """Run a worker: the log into tables, views and topics."""
    import asyncio

    from processors.settings import WorkerSettings
    from runtime.topics import ensure_topics

    settings = WorkerSettings.from_environment(os.environ)
    # The worker does it too; here a Kafka that can't be had is one line, without a traceback.
    asyncio.run(ensure_topics(settings))
    from processors.worker import run as run_worker

    run_worker(settings)


@_command(
    "plexy-ledger send --payment pay_1 --order ord_1 --amount 500000",
    "plexy-ledger send --type refund.succeeded --refund re_1 --payment pay_1",
)
def send(  # noqa: PLR0913, PLR0917 - one option for each field
    kind: Annotated[
        str, typer.Option("--type", help="the event's type", autocompletion=completion.event_types)
    ] = "payment.succeeded",
    payment: Annotated[str, typer.Option(help="payment id")] = "pay_1",
    order: Annotated[str | None, typer.Option(help="the shop's order reference")] = None,
    refund: Annotated[
        str | None, typer.Option(help="refund id; makes the payment the one that is refunded")
    ] = None,
    amount: Annotated[int, typer.Option(min=0, help="in minor units: cents, tiyn")] = 500000,
    currency: Annotated[
        str, typer.Option(help="ISO 4217 code", autocompletion=completion.currencies)
    ] = "KZT",
    event_id: Annotated[str | None, typer.Option(help="event id; a new one, unless given")] = None,
    created: Annotated[
        int | None, typer.Option(min=0, help="Unix seconds; now, unless given")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="a JSON object whose fields are put into `data`")
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="the ingress' address; unless given, from the settings")
    ] = None,
    secret: Annotated[
        str | None,
        typer.Option(
            help="signing secret; unless given, the first of LEDGER_WEBHOOK_SECRETS, else the one "
            "of `run`"
        ),
    ] = None,
) -> None:
    """Send one signed event, as Plexy would."""
    from cli.send import EventOptions, send_event

    options = EventOptions(kind, payment, order, refund, amount, currency, event_id, created, data)
    if not send_event(options, url, secret, os.environ):
        raise typer.Exit(FAILED)


@_command(
    "plexy-ledger simulate --check",
    "plexy-ledger simulate --seed 7 --events 20000 --rate 500 --check --json report.json",
)
def simulate(  # noqa: PLR0913, PLR0917 - what is sent, how, and what is done about it
    seed: Annotated[
        int | None, typer.Option(min=0, help="decides what is sent; a new one, unless given")
    ] = None,
    events: Annotated[
        int, typer.Option(min=1, help="how many events; duplicates come on top")
    ] = 1000,
    rate: Annotated[
        float, typer.Option(min=0, help="deliveries a second; 0: as fast as they are answered")
    ] = 0.0,
    check: Annotated[
        bool, typer.Option("--check", help="compare every order with what was sent")
    ] = False,
    check_within: Annotated[
        float, typer.Option(min=0, help="seconds in which the orders must become right")
    ] = 60.0,
    url: Annotated[
        str | None, typer.Option(help="the ingress' address; unless given, from the settings")
    ] = None,
    views_url: Annotated[
        list[str] | None,
        typer.Option(help="a worker's address; give several, and the next is asked if one fails"),
    ] = None,
    time_scale: Annotated[
        float, typer.Option(min=0.001, help="stretches or shortens the waits between attempts")
    ] = 1.0,
    concurrency: Annotated[int, typer.Option(min=1, help="most requests at a time")] = 32,
    json: Annotated[Path | None, typer.Option(help="write the report to this file too")] = None,
) -> None:
    """Send what virtual shops cause, as Plexy would, and check what comes of it.

    Orders with several attempts, refunds in every form, odd ids, amounts at the limits, late, twice
    and out of order, signed with each of LEDGER_WEBHOOK_SECRETS in turn. What is sent follows from
    the seed and the number of events. Each delivery is retried until it is acknowledged; Ctrl-C
    ends it and says what is still owed. The orders stay in the ledger: don't aim it at a shop's.
    """
    from rich.console import Console

    from cli.simulate.command import SimulateOptions
    from cli.simulate.command import simulate as run_simulation

    options = SimulateOptions(
        seed=seed,
        events=events,
        rate_per_s=rate,
        check=check,
        check_within_s=check_within,
        url=url,
        views_urls=tuple(views_url or ()),
        time_scale=time_scale,
        concurrency=concurrency,
        json_file=json,
    )
    code = run_simulation(options, os.environ, Console(width=_width()))
    if code:
        raise typer.Exit(code)


@_command(
    "plexy-ledger status",
    "plexy-ledger status --watch",
    "plexy-ledger status --json --worker http://127.0.0.1:6066 --worker http://127.0.0.1:6067",
)
def status(  # noqa: PLR0913, PLR0917 - where to look, for how long, and how to show it
    ingest: Annotated[
        str | None, typer.Option(help="the ingress' address; unless given, from the settings")
    ] = None,
    ingest_metrics: Annotated[
        str | None,
        typer.Option(help="address of the ingress' metrics; unless given, from the settings"),
    ] = None,
    worker: Annotated[
        list[str] | None,
        typer.Option(help="a worker's address; give one for each; unless given, from the settings"),
    ] = None,
    within: Annotated[
        float,
        typer.Option(min=0, help="seconds in which the workers must fold what is there now"),
    ] = 5.0,
    watch: Annotated[bool, typer.Option("--watch", help="look again until Ctrl-C")] = False,
    every: Annotated[float, typer.Option(min=0.1, help="seconds between two looks")] = 2.0,
    json: Annotated[bool, typer.Option("--json", help="one JSON object for each look")] = False,
) -> None:
    """Show at a glance whether all is well: lag by hop, and what each program says.

    Asks Kafka how many records each hop has not folded, and ingress and workers whether they are
    ready. The exit code is 0 if all is well, and 1 if something is not, which is then named: Kafka
    or a program does not answer or is not ready, or records that were there stay unfolded. Whether
    the ledger is right, `verify` and `audit` tell.
    """
    from rich.console import Console

    from cli.status import StatusOptions
    from cli.status import status as show_status

    options = StatusOptions(ingest, ingest_metrics, tuple(worker or ()), within, watch, every, json)
    if not show_status(os.environ, options, Console(width=_width(), stderr=json)):
        raise typer.Exit(FAILED)


@_command(
    "plexy-ledger verify",
    "plexy-ledger verify --order ord_1001",
    "plexy-ledger verify --since 2026-01-31",
)
def verify(
    since: Annotated[
        datetime | None,
        typer.Option(
            help="check signatures, and report differences, only of what arrived from this time "
            "(UTC) on; the whole log is read all the same, since any fact may matter"
        ),
    ] = None,
    order: Annotated[
        str | None, typer.Option(help="report only what concerns this order, and show its events")
    ] = None,
    old_secrets: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="file of signing secrets of former times, one a line, beside "
            "LEDGER_OLD_WEBHOOK_SECRETS",
        ),
    ] = None,
    wait_s: Annotated[
        float,
        typer.Option("--wait", min=0, help="how long the workers may take to catch up, in seconds"),
    ] = 60.0,
) -> None:
    """Fold the log of record anew, and compare everything with it.

    Reads the log from the start, checks each record's signature again, folds it without the
    workers' code or tables, and compares: every payment and order in the tables (by their
    changelogs), every published order, every journal entry, every account's balance. Only reads,
    beside workers that go on. The exit code is 1 if anything differs. No option takes a secret:
    arguments are visible to everybody on the machine.
    """
    from rich.console import Console

    from cli.verify import VerifyOptions
    from cli.verify import verify as verify_all

    options = VerifyOptions(since, order, old_secrets, wait_s)
    if not verify_all(os.environ, options, Console(width=_width())):
        raise typer.Exit(FAILED)


@_command(
    "LEDGER_WEBHOOK_SECRETS=whsec_development plexy-ledger prove proof.json",
    "LEDGER_ALLOW_UNSIGNED=true plexy-ledger prove proof.json --sequences 5000 --json",
)
def prove(
    file: Annotated[
        Path, typer.Argument(help="what GET /orders/{id}/proof of a worker's views answered")
    ],
    sequences: Annotated[
        int, typer.Option(help="most sequences in which the events are folded", min=1)
    ] = 720,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON document")] = False,
) -> None:
    """Check an order's proof offline: signatures, the fold, the sums.

    The events are folded in other sequences too, some of them twice: each must come to the same
    state. Exit code 0 if all of it holds, 1 if not; each thing that does not hold is named. That no
    event is left out a proof can't show: `verify` reads the whole log.
    """
    from rich.console import Console

    from cli import prove as proving

    console = Console(width=_width())
    if not proving.prove(os.environ, file, sequences, console, as_json=as_json):
        raise typer.Exit(FAILED)


@_command("LEDGER_WEBHOOK_SECRETS=whsec_development LEDGER_AUDIT_PORT=6081 plexy-ledger audit")
def audit() -> None:
    """Verify without an end, beside the workers.

    Folds the log as it grows, and compares with it whatever changes in tables and topics. Metrics
    are at /metrics. /readyz answers 503 with the reason once something differs, or while the
    workers are too far behind to tell. It stays up until it is stopped.
    """
    from cli.audit import audit as audit_all

    audit_all(os.environ)


@_command(
    "plexy-ledger rejected list",
    "plexy-ledger rejected list --all --reason currency_unknown --since 2026-01-31 --json",
    group=rejected,
    name="list",
)
def rejected_list(
    everything: Annotated[
        bool, typer.Option("--all", help="also what was put back already")
    ] = False,
    reason: Annotated[Reason | None, typer.Option(help="only of this reason")] = None,
    since: Annotated[
        datetime | None, typer.Option(help="only what was rejected from this time (UTC) on")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="one JSON object a line")] = False,
) -> None:
    """List what was rejected and is not put back, the newest last."""
    from rich.console import Console

    from cli.rejected import ListOptions, list_items

    options = ListOptions(everything, reason, since, json)
    list_items(os.environ, options, Console(width=_width(), stderr=json))


@_command(
    "plexy-ledger rejected show plexy.webhooks/2/118",
    "plexy-ledger rejected show --raw plexy.webhooks/2/118",
    group=rejected,
    name="show",
)
def rejected_show(
    item: Annotated[str, typer.Argument(metavar="ID", help="as `rejected list` has it")],
    raw: Annotated[
        bool, typer.Option("--raw", help="write the body's bytes, and nothing else")
    ] = False,
) -> None:
    """Show one rejection: why, from where, its signature, its bytes, and what a retry would do."""
    from rich.console import Console

    from cli.rejected import show_item

    show_item(os.environ, item, Console(width=_width(), stderr=raw), raw=raw)


@_command(
    "plexy-ledger rejected retry plexy.webhooks/2/118",
    "plexy-ledger rejected retry --reason currency_unknown --dry-run",
    group=rejected,
    name="retry",
)
def rejected_retry(
    items: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="as `rejected list` has them")
    ] = None,
    reason: Annotated[Reason | None, typer.Option(help="all open ones of this reason")] = None,
    everything: Annotated[bool, typer.Option("--all", help="all open ones")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="also what was put back already; it changes no state")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="write nothing, only say what would be done")
    ] = False,
) -> None:
    """Put back what was rejected, after a fix, once.

    Judges the bytes again with the code and the settings of now. What is good is put on the path at
    the place in the log that it always had, and is marked as put back; the rest stays, and is named
    with the reason. Workers must run with the same fix, or what comes next is rejected again. The
    exit code is 1 if anything that was named stays rejected.
    """
    from rich.console import Console

    from cli.retry import RetryOptions, retry

    options = RetryOptions(tuple(items or ()), reason, everything, again, dry_run)
    if not retry(os.environ, options, Console(width=_width())):
        raise typer.Exit(FAILED)


@_command("plexy-ledger export-log ledger-2026-01-31.log")
def export_log(
    file: Annotated[Path, typer.Argument(help="a new file; its folder must be there")],
) -> None:
    """Write the log of record to a compressed file with checksums.

    Reads `plexy.webhooks` up to what is in it now, beside a live ledger: every record with its
    place, time, key, body and headers, byte for byte. The file has its name only once it is whole.
    The exit code is 1 if the log has lost records, and the offsets are named; what it has is in the
    file all the same.
    """
    from rich.console import Console

    from cli.export_log import export_log as export

    if not export(os.environ, file, Console(width=_width())):
        raise typer.Exit(FAILED)


@_command(
    "plexy-ledger import-log ledger-2026-01-31.log",
    "plexy-ledger import-log --check ledger-2026-01-31.log",
)
def import_log(
    file: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="a file of `export-log`")
    ],
    check: Annotated[
        bool, typer.Option("--check", help="only check the file; asks for no Kafka")
    ] = False,
) -> None:
    """Bring the log of record back from a file, into a ledger that has none.

    Checks the whole file first. Creates the topics, and writes every record to the partition and
    offset that it had; workers then fold it to the same state. Run it before ingress is started: a
    topic with other records is refused. An import that was interrupted goes on when the same
    command is run again.
    """
    from rich.console import Console

    from cli.import_log import import_log as import_file

    if not import_file(os.environ, file, Console(width=_width()), only_check=check):
        raise typer.Exit(FAILED)


@_command(
    "plexy-ledger export --format beancount --out plexy.beancount",
    "plexy-ledger export --format hledger --out plexy.journal",
    "plexy-ledger export --format csv",
)
def export(
    kind: Annotated[
        Format, typer.Option("--format", help="the program that shall read it, or a plain table")
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="a new file; its folder must be there. Unless given, standard output"),
    ] = None,
    wait_s: Annotated[
        float,
        typer.Option("--wait", min=0, help="how long the workers may take to catch up, in seconds"),
    ] = 60.0,
) -> None:
    """Write the journal for Beancount, for hledger, or as CSV.

    Waits until all that is in the log now is posted, and reads `ledger.entries` up to what is in it
    then: every entry once, by time (UTC), then by its fact's place in the log. Amounts are in major
    units, exact. The payment, the refund, the event, its place in the log and the entry that a
    reversal takes back stand beside each entry, percent-quoted. A file has its name only once it is
    whole. What the accounts come to is shown on standard error. Takes about 1 KB of memory for each
    entry.
    """
    from rich.console import Console

    from cli.accounting.export import ExportOptions
    from cli.accounting.export import export as export_journal

    console = Console(width=_width(sys.stderr), stderr=True)
    export_journal(os.environ, ExportOptions(kind, out, wait_s), console)


@_command(
    "plexy-ledger reconcile settlement.csv",
    "plexy-ledger reconcile --from 2026-01-01 --to 2026-01-31 --json settlement.csv",
)
def reconcile(  # noqa: PLR0913, PLR0917 - the file, how it is written, and of which days
    file: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="CSV in UTF-8, with a header")
    ],
    minor: Annotated[
        bool, typer.Option("--minor", help="amounts are integers of minor units: cents, tiyn")
    ] = False,
    first_day: Annotated[
        datetime | None,
        typer.Option("--from", formats=["%Y-%m-%d"], help="the period's first day, in UTC"),
    ] = None,
    last_day: Annotated[
        datetime | None,
        typer.Option("--to", formats=["%Y-%m-%d"], help="the period's last day, in UTC"),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="one JSON object, amounts in minor units")
    ] = False,
    wait_s: Annotated[
        float,
        typer.Option("--wait", min=0, help="how long the workers may take to catch up, in seconds"),
    ] = 60.0,
) -> None:
    r"""Compare a settlement file with what stands in the journal.

    The header names the columns, in any order; others are passed over:

    \b
      payment_id  as Plexy sends it
      amount      1500.50, in major units: digits, and a point before decimals;
                  a refund's may have a minus. With --minor: digits only
      currency    ISO 4217 code, such as KZT
      kind        payment or refund

    The refunds of a payment match as a multiset of amounts. With --from or --to, what the ledger
    has of other days is not missing in the file, and still matches what the file has. The exit code
    is 0 if all match, 1 if anything differs, and 2 if the file can't be read: then the line and the
    value are named.
    """
    from rich.console import Console

    from cli.accounting.reconcile import ReconcileOptions, reconcile_file

    options = ReconcileOptions(
        path=file,
        minor=minor,
        first_day=first_day,
        last_day=last_day,
        as_json=json,
        wait_s=wait_s,
    )
    progress = Console(width=_width(sys.stderr), stderr=True)
    if not reconcile_file(os.environ, options, Console(width=_width()), progress):
        raise typer.Exit(FAILED)


@_command("plexy-ledger rebuild", "LEDGER_VERSION=2 plexy-ledger rebuild --to 3 --wait 0")
def rebuild(
    to: Annotated[
        int | None,
        typer.Option(min=2, max=1000, help="version to make; the next one, unless given"),
    ] = None,
    wait_s: Annotated[
        float,
        typer.Option(
            "--wait", min=0, help="how long the old version's workers may take to catch up, seconds"
        ),
    ] = 60.0,
) -> None:
    """Make everything that follows from the log anew, as another version.

    A worker of its own folds the log of record into new tables and topics, beside the workers that
    run and the deliveries that come. Then both versions are compared with the log, and with each
    other. The exit code is 1 if anything differs; a rebuild says how to switch if the new version
    is what follows from the log. One that was interrupted goes on where it stopped: type it again.
    """
    from rich.console import Console

    from cli.rebuild import RebuildOptions
    from cli.rebuild import rebuild as rebuild_all

    if not rebuild_all(os.environ, RebuildOptions(to, wait_s), Console(width=_width())):
        raise typer.Exit(FAILED)


@_command("plexy-ledger doctor", "plexy-ledger doctor ingest worker --json")
def doctor(
    programs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PROGRAM]...", help="only what these commands need; else all"),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="one JSON object, for programs")] = False,
) -> None:
    """Check whether this machine, with these settings, can run the ledger.

    Looks at settings, versions, Kafka and its clock, topics, the worker's folder, and ports, and
    says what to do about each thing that is not right. Only reads: it creates nothing, and writes
    nothing to Kafka. The exit code is 1 if there is a problem; a warning is none.
    """
    from rich.console import Console

    from cli.doctor.command import doctor as look

    console = Console(width=_width(), stderr=json)
    if not look(os.environ, tuple(programs or ()), console, as_json=json):
        raise typer.Exit(FAILED)


@_command("plexy-ledger settings", "plexy-ledger settings --markdown")
def settings(
    markdown: Annotated[
        bool, typer.Option("--markdown", help="print the table that the README has")
    ] = False,
) -> None:
    """List every setting, and which commands read it."""
    from rich.console import Console

    from cli.settings_table import as_markdown, as_table

    if markdown:
        typer.echo(as_markdown())
    else:
        Console(width=_width()).print(as_table())


@_command("plexy-ledger version")
def version() -> None:
    """Print the versions that a bug report needs."""
    from cli.versions import versions

    for name, number in versions():
        typer.echo(f"{name:<16} {number}")
