"""The commands that check whether the ledger runs, and whether it is correct."""

import os
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from cli.commands.declare import command, console

_Workers = Annotated[
    list[str] | None,
    typer.Option(
        help="address of a worker's views, which report the content of all workers' disks; you can "
        "give several addresses: if one does not answer, the next address is asked; default: from "
        "the settings"
    ),
]


@command(
    "plexy-ledger status",
    "plexy-ledger status --watch",
    "plexy-ledger status --json --worker http://127.0.0.1:6066 --worker http://127.0.0.1:6067",
)
def status(  # noqa: PLR0913, PLR0917 - one parameter for each option
    ingest: Annotated[
        str | None, typer.Option(help="the ingress' address; default: from the settings")
    ] = None,
    ingest_metrics: Annotated[
        str | None,
        typer.Option(help="address of the ingress' metrics; default: from the settings"),
    ] = None,
    worker: Annotated[
        list[str] | None,
        typer.Option(help="a worker's address, once for each worker; default: from the settings"),
    ] = None,
    within: Annotated[
        float,
        typer.Option(min=0, help="seconds in which the workers must fold the current records"),
    ] = 5.0,
    watch: Annotated[bool, typer.Option("--watch", help="repeat the check until Ctrl-C")] = False,
    every: Annotated[float, typer.Option(min=0.1, help="seconds between two checks")] = 2.0,
    json: Annotated[bool, typer.Option("--json", help="one JSON object for each check")] = False,
) -> bool:
    """Show at a glance whether all is well.

    Asks Kafka how many records each hop (each step of the fold) has not folded yet. Asks ingress
    and the workers whether they are ready. The exit code is 0 if all is well. Otherwise the exit
    code is 1, and the output lists each problem: for example, Kafka or a program does not answer, a
    program is not ready, or records stay unfolded. `status` does not check whether the ledger is
    correct; `verify` and `audit` do.
    """
    from cli.status.command import StatusOptions
    from cli.status.command import status as show_status

    options = StatusOptions(ingest, ingest_metrics, tuple(worker or ()), within, watch, every, json)
    return show_status(os.environ, options, console(stderr=json))


@command(
    "plexy-ledger doctor", "plexy-ledger doctor run", "plexy-ledger doctor ingest worker --json"
)
def doctor(
    programs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PROGRAM", help="check only the needs of these commands; default: all"
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="one JSON object, for programs")] = False,
) -> bool:
    """Check whether the ledger can run here, with these settings.

    Checks the settings, the versions, Kafka and its clock, the topics, the worker's folder, and the
    ports. Names the remedy for each problem. `doctor` only reads: it creates nothing, and writes
    nothing to Kafka. The exit code is 1 if there is a problem, and 0 if there are only warnings.
    """
    from cli.doctor.command import doctor as look

    shown = console(stderr=json)
    return look(os.environ, tuple(programs or ()), shown, as_json=json)


@command(
    "plexy-ledger verify",
    "plexy-ledger verify --order ord_1001",
    "plexy-ledger verify --since 2026-01-31",
)
def verify(
    since: Annotated[
        datetime | None,
        typer.Option(
            help="check signatures and report differences only for records that arrived since this "
            "time (UTC); the whole log is still read, because any fact may matter"
        ),
    ] = None,
    order: Annotated[
        str | None, typer.Option(help="report only this order's differences, and show its events")
    ] = None,
    old_secrets: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="file of former signing secrets, one per line, in addition to "
            "LEDGER_OLD_WEBHOOK_SECRETS",
        ),
    ] = None,
    wait_s: Annotated[
        float,
        typer.Option("--wait", min=0, help="how long the workers may take to catch up, in seconds"),
    ] = 60.0,
    worker: _Workers = None,
) -> bool:
    """Compare the whole ledger with a fold of the log from scratch.

    Reads the log from the start, checks each signature again, and folds the log without the
    workers' code or tables. Compares the result with every payment and order in the tables (which
    are read from their changelogs), every published order, every journal entry and every account's
    balance. Then compares the workers' disks with the changelogs. `verify` only reads, so the
    workers may run meanwhile. The exit code is 1 if anything differs. No option takes a secret,
    because every user of the machine can see the arguments of a command.
    """
    from cli.verification.verify import VerifyOptions
    from cli.verification.verify import verify as verify_all

    options = VerifyOptions(since, order, old_secrets, wait_s, tuple(worker or ()))
    return verify_all(os.environ, options, console())


@command(
    "LEDGER_WEBHOOK_SECRETS=whsec_development plexy-ledger prove proof.json",
    "LEDGER_ALLOW_UNSIGNED=true plexy-ledger prove proof.json --sequences 5000 --json",
)
def prove(
    file: Annotated[
        Path, typer.Argument(help="file with a worker's answer to GET /orders/{id}/proof")
    ],
    sequences: Annotated[
        int | None,
        typer.Option(
            help="maximum number of sequences in which to fold the events; default: 720, and "
            "fewer for an order with more than 27 events",
            min=1,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON document")] = False,
) -> bool:
    """Check an order's proof, without asking the ledger.

    Checks the signatures, the fold and the sums in the file, and asks no other program. Also folds
    the events in other sequences, with some events twice; each sequence must lead to the same
    state. The exit code is 0 if every check succeeds. Otherwise the exit code is 1, and the output
    lists each failure. A proof can't show that it contains every event of the order. To check that,
    run `verify`, which reads the whole log.
    """
    from cli.verification import prove as proving

    return proving.prove(os.environ, file, sequences, console(), as_json=as_json)


@command("LEDGER_WEBHOOK_SECRETS=whsec_development LEDGER_AUDIT_PORT=6081 plexy-ledger audit")
def audit(worker: _Workers = None) -> None:
    """Verify continuously, alongside the workers.

    Folds the log as it grows, and compares every change in tables and topics with the result.
    Compares the workers' disks with the changelogs, and makes the workers read their whole disks.
    /metrics has the metrics. /readyz answers 503 with the reason while something differs, and while
    the audit can't judge, for example because the workers lag too far behind. The audit runs until
    you stop it.
    """
    from cli.verification.audit import audit as audit_all

    audit_all(os.environ, tuple(worker or ()))


@command("plexy-ledger rebuild", "LEDGER_VERSION=2 plexy-ledger rebuild --to 3 --wait 0")
def rebuild(
    to: Annotated[
        int | None,
        typer.Option(min=2, max=1000, help="version to make; default: the next version"),
    ] = None,
    wait_s: Annotated[
        float,
        typer.Option(
            "--wait", min=0, help="how many seconds the old version's workers may take to catch up"
        ),
    ] = 60.0,
) -> bool:
    """Fold the whole log again, into new tables and topics.

    A separate worker folds the log of record into new tables and topics; workers and ingress keep
    running. Then both versions are compared with the log, and with each other. The exit code is 1
    if anything differs. If the new version agrees with the log, the command says how to switch to
    the new version. After an interruption, run the same command again: it continues the rebuild.
    """
    from cli.verification.rebuild import RebuildOptions
    from cli.verification.rebuild import rebuild as rebuild_all

    return rebuild_all(os.environ, RebuildOptions(to, wait_s), console())
