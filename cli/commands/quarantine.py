"""The commands about what was rejected."""

import os
from datetime import datetime
from typing import Annotated

import typer

from cli.commands.declare import command, console, group
from ledger.rejections import Reason

rejected = group("rejected", "List, show and retry what was kept and is not counted.")


@command(
    "plexy-ledger rejected list",
    "plexy-ledger rejected list --all --reason currency_unknown --since 2026-01-31 --json",
    within=rejected,
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
    from cli.quarantine.rejected import ListOptions, list_items

    options = ListOptions(everything, reason, since, json)
    list_items(os.environ, options, console(stderr=json))


@command(
    "plexy-ledger rejected show plexy.webhooks/2/118",
    "plexy-ledger rejected show --raw plexy.webhooks/2/118",
    within=rejected,
    name="show",
)
def rejected_show(
    item: Annotated[str, typer.Argument(metavar="ID", help="as `rejected list` has it")],
    raw: Annotated[
        bool, typer.Option("--raw", help="write the body's bytes, and nothing else")
    ] = False,
) -> None:
    """Show one rejection: why it is one, and what a retry would do.

    With where it came from, whether its signature is good, and its bytes.
    """
    from cli.quarantine.rejected import show_item

    show_item(os.environ, item, console(stderr=raw), raw=raw)


@command(
    "plexy-ledger rejected retry plexy.webhooks/2/118",
    "plexy-ledger rejected retry --reason currency_unknown --dry-run",
    within=rejected,
    name="retry",
)
def rejected_retry(
    items: Annotated[
        list[str] | None, typer.Argument(metavar="ID", help="as `rejected list` has them")
    ] = None,
    reason: Annotated[Reason | None, typer.Option(help="all open ones of this reason")] = None,
    everything: Annotated[bool, typer.Option("--all", help="all open ones")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="also what was put back already; it changes no state")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="write nothing, only say what would be done")
    ] = False,
) -> bool:
    """Put back what was rejected, after a fix, once.

    Judges the bytes again with the code and the settings of now. What is good is put on the path at
    the place in the log that it always had, and is marked as put back; the rest stays, and is named
    with the reason. Workers must run with the same fix, or what comes next is rejected again. The
    exit code is 1 if anything that was named stays rejected.
    """
    from cli.quarantine.retry import RetryOptions, retry

    options = RetryOptions(tuple(items or ()), reason, everything, again, dry_run)
    return retry(os.environ, options, console())
