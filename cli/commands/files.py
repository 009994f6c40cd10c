"""The commands that write or read files."""

import os
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from cli.accounting import DecimalMark, JournalFormat
from cli.commands.declare import command, console


@command("plexy-ledger export-log ledger-2026-01-31.log")
def export_log(
    file: Annotated[Path, typer.Argument(help="a new file in an existing folder")],
) -> bool:
    """Write the log of record to a compressed file with checksums.

    Reads `plexy.webhooks` up to its current end; the ledger may run meanwhile. The file contains
    every record with its place, time, key, body and headers, byte for byte. The file receives its
    final name only after it is complete. If the log has lost records, the exit code is 1, the lost
    offsets are listed, and the file has all other records.
    """
    from cli.log.export_log import export_log as export

    return export(os.environ, file, console())


@command(
    "plexy-ledger import-log ledger-2026-01-31.log",
    "plexy-ledger import-log --check ledger-2026-01-31.log",
)
def import_log(
    file: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="a file that `export-log` wrote")
    ],
    check: Annotated[
        bool, typer.Option("--check", help="only check the file; needs no Kafka")
    ] = False,
) -> bool:
    """Restore the log of record from a file of `export-log`.

    The ledger must have no log yet. The command first checks the whole file. Then it creates the
    topics, and writes every record to its former partition and offset, so that workers fold the log
    to the same state. Run the command before you start ingress, because the command refuses a topic
    that has other records. After an interruption, run the same command again: it continues the
    import.
    """
    from cli.log.import_log import import_log as import_file

    return import_file(os.environ, file, console(), only_check=check)


@command(
    "plexy-ledger export --format beancount --out plexy.beancount",
    "plexy-ledger export --format hledger --out plexy.journal",
    "plexy-ledger export --format csv",
)
def export(
    kind: Annotated[
        JournalFormat,
        typer.Option("--format", help="the program that will read the file; csv: a plain table"),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="a new file in an existing folder; default: standard output"),
    ] = None,
    wait_s: Annotated[
        float,
        typer.Option("--wait", min=0, help="how long the workers may take to catch up, in seconds"),
    ] = 60.0,
) -> None:
    """Write the journal for Beancount, for hledger, or as CSV.

    Waits until the workers have posted the current log, and reads `ledger.entries` up to its end.
    Writes every entry once. The entries are sorted by time (UTC), then by the place of their event
    in the log. Amounts are exact, in major units. Each entry names its payment, its refund, its
    event and the place of the event in the log; a reversal also names the reversed entry. Ids are
    percent-quoted. A file receives its final name only after it is complete. Standard error shows
    the accounts' balances. The command takes about 1 KB of memory for each entry.
    """
    from cli.accounting.export import ExportOptions
    from cli.accounting.export import export as export_journal

    export_journal(os.environ, ExportOptions(kind, out, wait_s), console(stderr=True))


@command(
    "plexy-ledger reconcile settlement.csv",
    "plexy-ledger reconcile --from 2026-01-01 --to 2026-01-31 --json settlement.csv",
)
def reconcile(  # noqa: PLR0913, PLR0917 - one parameter for each option
    file: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="CSV in UTF-8, with a header")
    ],
    minor: Annotated[
        bool, typer.Option("--minor", help="amounts are integers in minor units: cents, tiyn")
    ] = False,
    decimal: Annotated[
        DecimalMark | None,
        typer.Option(help="the decimal mark; needed for ambiguous amounts, such as 1,500"),
    ] = None,
    zone: Annotated[
        str,
        typer.Option(help="time zone of all days: a name such as Asia/Almaty, or UTC+5 or +05:00"),
    ] = "UTC",
    first_day: Annotated[
        datetime | None,
        typer.Option("--from", formats=["%Y-%m-%d"], help="the period's first day"),
    ] = None,
    last_day: Annotated[
        datetime | None,
        typer.Option("--to", formats=["%Y-%m-%d"], help="the period's last day"),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="one JSON object, with amounts in minor units")
    ] = False,
    wait_s: Annotated[
        float,
        typer.Option("--wait", min=0, help="how long the workers may take to catch up, in seconds"),
    ] = 60.0,
) -> bool:
    """Compare a settlement file with the journal.

    Commas or semicolons separate the columns of the file. The header must name the following four
    columns, in any order, in upper or lower case. Other columns are ignored.

    `payment_id` is the payment's id as Plexy sends it; for a refund, it is the id of the refunded
    payment. `amount` is in major units, such as 1500.50 or 1500,50, and may separate thousands;
    with --minor, it is in minor units and has only digits. The amount of a refund may have a minus
    sign. `currency` is an ISO 4217 code such as KZT. `kind` is payment or refund.

    The refunds of one payment are matched by amount only, because the file has no refund ids. With
    --from or --to, the file need not contain the entries of other days, but its rows may still
    match those entries. The exit code is 0 if everything matches, 1 if anything differs, and 2 if
    the file can't be read; the error names the line and the value.
    """
    from cli.accounting.reconcile import ReconcileOptions, reconcile_file
    from cli.accounting.settlement_values import zone_of

    options = ReconcileOptions(
        path=file,
        minor=minor,
        decimal=decimal and decimal.value,
        zone=zone_of(zone),
        first_day=first_day,
        last_day=last_day,
        as_json=json,
        wait_s=wait_s,
    )
    progress = console(stderr=True)
    return reconcile_file(os.environ, options, console(), progress)
