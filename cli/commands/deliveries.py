"""The commands that deliver events, as Plexy would."""

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

from cli.commands import completion
from cli.commands.declare import command, console


class Dialect(StrEnum):
    """The dialects in which Plexy delivers."""

    SDK = "sdk"
    PAY = "pay"


@command(
    "plexy-ledger send --payment pay_1 --order ord_1 --amount 500000",
    "plexy-ledger send --type refund.succeeded --refund re_1 --payment pay_1",
    "plexy-ledger send --dialect pay --token-file token.txt --payment txn_1 --order ord_1",
)
def send(  # noqa: PLR0913, PLR0917 - one parameter for each option
    kind: Annotated[
        str | None,
        typer.Option(
            "--type",
            help="the event's type; default: payment.succeeded; default with `--dialect pay`: "
            "transaction.refunded if --refund is given, otherwise transaction.charged",
            autocompletion=completion.event_types,
        ),
    ] = None,
    payment: Annotated[str, typer.Option(help="payment id")] = "pay_1",
    order: Annotated[str | None, typer.Option(help="the shop's order reference")] = None,
    refund: Annotated[
        str | None, typer.Option(help="refund id; --payment is then the refunded payment")
    ] = None,
    amount: Annotated[int, typer.Option(min=0, help="in minor units: cents, tiyn")] = 500000,
    currency: Annotated[
        str, typer.Option(help="ISO 4217 code", autocompletion=completion.currencies)
    ] = "KZT",
    event_id: Annotated[str | None, typer.Option(help="event id; default: a new id")] = None,
    created: Annotated[int | None, typer.Option(min=0, help="Unix seconds; default: now")] = None,
    data: Annotated[
        str | None, typer.Option(help="a JSON object whose fields are put into `data`")
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="the ingress' address; default: from the settings")
    ] = None,
    secret: Annotated[
        str | None,
        typer.Option(
            help="signing secret; default: the first secret of LEDGER_WEBHOOK_SECRETS; if that is "
            "not set, the development secret that `plexy-ledger run` uses"
        ),
    ] = None,
    dialect: Annotated[
        Dialect, typer.Option(help="sdk: a signed event; pay: a notification of the Pay API")
    ] = Dialect.SDK,
    token_file: Annotated[
        Path | None,
        typer.Option(
            help="file with the Pay API's token; default: the first token of LEDGER_PAY_TOKENS"
        ),
    ] = None,
) -> bool:
    """Send one event, as Plexy would."""
    from cli.send import EventOptions, SenderIdentity, send_event

    options = EventOptions(kind, payment, order, refund, amount, currency, event_id, created, data)
    return send_event(options, url, SenderIdentity(dialect, secret, token_file), os.environ)


@command(
    "plexy-ledger simulate --check",
    "plexy-ledger simulate --seed 7 --events 20000 --rate 500 --check --json report.json",
)
def simulate(  # noqa: PLR0913, PLR0917 - one parameter for each option
    seed: Annotated[
        int | None, typer.Option(min=0, help="determines the events; default: a new seed")
    ] = None,
    events: Annotated[
        int, typer.Option(min=1, help="number of events; duplicates do not count")
    ] = 1000,
    rate: Annotated[
        float, typer.Option(min=0, help="deliveries a second; 0: as fast as ingress answers")
    ] = 0.0,
    check: Annotated[
        bool, typer.Option("--check", help="compare every order with the sent events")
    ] = False,
    check_within: Annotated[
        float, typer.Option(min=0, help="seconds in which the orders must become correct")
    ] = 60.0,
    url: Annotated[
        str | None, typer.Option(help="the ingress' address; default: from the settings")
    ] = None,
    views_url: Annotated[
        list[str] | None,
        typer.Option(
            help="a worker's address; you can give several addresses: if one does not answer, the "
            "next address is asked; default: from the settings"
        ),
    ] = None,
    time_scale: Annotated[
        float,
        typer.Option(min=0.001, help="factor that multiplies the waits between two attempts"),
    ] = 1.0,
    concurrency: Annotated[int, typer.Option(min=1, help="limit of concurrent requests")] = 32,
    dialects: Annotated[
        str,
        typer.Option(
            help="dialects of the payments: `sdk`, `pay` (the Pay API), or both as `sdk,pay`"
        ),
    ] = "sdk",
    rules: Annotated[
        Literal["seed", "lifecycle"],
        typer.Option(help="the rule set of the ledger that receives the events (its LEDGER_RULES)"),
    ] = "seed",
    json: Annotated[Path | None, typer.Option(help="also write the report to this file")] = None,
) -> None:
    """Send the events of virtual shops, and check the ledger.

    The events include several payment attempts per order, refunds in every form, unusual ids, and
    amounts at the limits. With `--rules lifecycle`, they also include captures, voids, reversed
    refunds and disputes. Some events arrive late, more than once or in the wrong sequence. If
    LEDGER_WEBHOOK_SECRETS has several secrets, each secret signs an equal part of the run. The same
    seed, number of events, rules and dialects give the same deliveries. Each delivery is retried
    until it is acknowledged. Ctrl-C ends the command, which then lists the events that are not
    acknowledged yet. The orders stay in the ledger, so do not run `simulate` against the ledger of
    a real shop.
    """
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
        dialects=dialects,
        rules=rules,
        json_file=json,
    )
    code = run_simulation(options, os.environ, console())
    if code:
        raise typer.Exit(code)
