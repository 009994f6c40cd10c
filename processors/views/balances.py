"""The page with the trial balance and the activity by day, for the payments of all workers."""

import asyncio
from collections.abc import Iterable
from datetime import date, timedelta
from typing import Any, Final

import msgspec
from faust.web import Request, View
from yarl import URL

from ledger.accounting.activity import Activity, add
from processors.topology import LedgerApp
from processors.views import parameters, state
from processors.views.answers import ProblemError, json_answer
from processors.views.workers import asks_this_one, other_workers, require_whole

_EPOCH: Final = date(1970, 1, 1)
_LAST_DAY: Final = (date.max - _EPOCH).days


class Posted(msgspec.Struct):
    """The amount posted to one account in one currency on one day (``2026-01-31``, UTC).

    ``number`` counts the days since 1970-01-01. An event may claim any time. If its time is after
    the year 9999, ``day`` is the last day of that year, and only ``number`` distinguishes such
    days.
    """

    account: str
    currency: str
    day: str
    number: int
    amount: int


class Balance(msgspec.Struct):
    """The balance of one account in one currency, in minor units; positive for a debit."""

    account: str
    currency: str
    amount: int


class Balances(msgspec.Struct):
    """The trial balance of the payments in ``partitions``; ``days`` is filled only on request.

    The balances of each currency sum to zero.
    """

    partitions: list[int]
    balances: list[Balance]
    days: list[Posted] = []


def add_pages(app: LedgerApp) -> None:
    """Declare the page."""

    @app.page("/balances")
    async def get_balances(_view: View, request: Request) -> Any:
        """Return every account's balance by currency; ``days=true`` adds the amounts by day."""
        state.require_ready(app)
        days = parameters.flag(request, "days")
        if asks_this_one(request):
            return json_answer(msgspec.json.encode(_document(*_own_part(app), days=True)))
        partitions, activity = await _all_parts(app)
        return json_answer(msgspec.json.encode(_document(partitions, activity, days=days)))


def _own_part(app: LedgerApp) -> tuple[list[int], Activity]:
    """Return this worker's partitions, and the sums over their payments."""
    partitions, posted = app.posted.active, app.posted.here()
    if posted is None:
        raise ProblemError(503, "being_summed", "this worker's payments are still being summed up")
    total: dict[tuple[str, str, int], int] = {}
    for each in posted:
        add(total, each.activity)
    return partitions, total


async def _all_parts(app: LedgerApp) -> tuple[list[int], Activity]:
    partitions, activity = _own_part(app)
    total = dict(activity)
    for document in await asyncio.gather(*(_part_of(app, worker) for worker in other_workers(app))):
        partitions = [*partitions, *document.partitions]
        add(total, {(p.account, p.currency, p.number): p.amount for p in document.days})
    require_whole(partitions, app.settings.partitions)
    return sorted(partitions), total


async def _part_of(app: LedgerApp, worker: URL) -> Balances:
    answer = await state.fetch(app, worker, "/balances?scope=worker")
    if answer is None:
        raise ProblemError(503, "unavailable", f"the worker at {worker} has no balances")
    return msgspec.json.decode(answer, type=Balances)


def _document(partitions: list[int], activity: Activity, *, days: bool) -> Balances:
    sums: dict[tuple[str, str], int] = {}
    for (account, currency, _), amount in activity.items():
        sums[account, currency] = sums.get((account, currency), 0) + amount
    return Balances(
        partitions=partitions,
        balances=[
            Balance(account, currency, sums[account, currency])
            for account, currency in sorted(sums)
        ],
        days=list(_days(activity)) if days else [],
    )


def _days(activity: Activity) -> Iterable[Posted]:
    for account, currency, day in sorted(activity, key=lambda each: (each[2], each[0], each[1])):
        date = (_EPOCH + timedelta(days=min(day, _LAST_DAY))).isoformat()
        yield Posted(account, currency, date, day, activity[account, currency, day])
