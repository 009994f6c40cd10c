"""The commands about rejected records."""

import os
from datetime import datetime
from typing import Annotated

import typer

from cli.commands.declare import command, console, group
from ledger.rejections import Reason

rejected = group("rejected", "List, show and retry records that are kept but not counted.")


@command(
    "plexy-ledger rejected list",
    "plexy-ledger rejected list --all --reason currency_unknown --since 2026-01-31 --json",
    within=rejected,
    name="list",
)
def rejected_list(
    everything: Annotated[
        bool, typer.Option("--all", help="also items that were put back")
    ] = False,
    reason: Annotated[Reason | None, typer.Option(help="only items with this reason")] = None,
    since: Annotated[
        datetime | None, typer.Option(help="only items rejected since this time (UTC)")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="one JSON object per line")] = False,
) -> None:
    """List the rejected items that were not put back; the newest is last."""
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
    item: Annotated[str, typer.Argument(metavar="ID", help="an id from `rejected list`")],
    raw: Annotated[
        bool, typer.Option("--raw", help="write the body's bytes, and nothing else")
    ] = False,
) -> None:
    """Show one rejected item: its reason, and what a retry would do.

    Also shows its source, whether its signature is good, and its bytes.
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
        list[str] | None, typer.Argument(metavar="ID", help="ids from `rejected list`")
    ] = None,
    reason: Annotated[
        Reason | None, typer.Option(help="retry all open items with this reason")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="retry all open items")] = False,
    again: Annotated[
        bool,
        typer.Option("--again", help="also retry items that were put back; this changes no state"),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="write nothing, only report what a retry would do")
    ] = False,
) -> bool:
    """Put rejected items back, after a fix.

    Judges the bytes of each item again with the current code and settings. If the bytes are valid
    now, the command appends them to the log again, and marks the item as put back. The other items
    stay rejected, and are listed with the reason. The workers must run with the same fix; otherwise
    they reject the records again. The exit code is 1 if one of the chosen items stays rejected.
    """
    from cli.quarantine.retry import RetryOptions, retry

    options = RetryOptions(tuple(items or ()), reason, everything, again, dry_run)
    return retry(os.environ, options, console())
