"""The page about the tables on the workers' disks; `audit` and `verify` compare these tables."""

import asyncio
from typing import Any

import msgspec
from faust.web import Request, View
from yarl import URL

from ledger.topics import TableName
from ledger.verification.replicas import AllTables, Replica, WorkerTables
from processors.engine.tables import ChunkTable
from processors.topology import LedgerApp
from processors.views import parameters, state
from processors.views.answers import ProblemError, json_answer
from processors.views.workers import asks_this_one, other_workers


def add_pages(app: LedgerApp) -> None:
    """Declare the page."""

    @app.page("/tables")
    async def get_tables(_view: View, request: Request) -> Any:
        """Return all partitions on the workers' disks; with ``scrub=true``, also start a scrub."""
        scrub = parameters.flag(request, "scrub")
        if scrub:
            app.scrubber.want()
        if asks_this_one(request):
            return json_answer(msgspec.json.encode(_own_part(app)))
        return json_answer(msgspec.json.encode(await _all_parts(app, scrub=scrub)))


def _own_part(app: LedgerApp) -> WorkerTables:
    replicas = [
        _replica(app, name, table, partition)
        for name, table in app.chunk_tables.items()
        for partition in sorted(table.held)
    ]
    worker = str(app.conf.canonical_url)
    return WorkerTables(worker=worker, replicas=replicas, damages=app.scrubber.damages())


def _replica(app: LedgerApp, name: TableName, table: ChunkTable, partition: int) -> Replica:
    """Describe a partition by its current digest or, if that is unknown, by its last reading."""
    end, digest = table.held[partition]
    reading = app.scrubber.reading(name, partition)
    if digest is None and reading is not None:
        end, digest = reading.end, reading.digest
    return Replica(
        table=name,
        changelog=table.changelog_name,
        partition=partition,
        is_active=table.is_active(partition),
        end=end,
        rows=digest.rows if digest else 0,
        digest=str(digest) if digest else None,
        scrubbed_at_ms=reading.at_ms if reading else None,
    )


async def _all_parts(app: LedgerApp, *, scrub: bool) -> AllTables:
    others = other_workers(app)
    found = await asyncio.gather(*(_part_of(app, worker, scrub=scrub) for worker in others))
    return AllTables(
        workers=[_own_part(app), *(each for each in found if each is not None)],
        unreachable=[str(url) for url, each in zip(others, found, strict=True) if each is None],
    )


async def _part_of(app: LedgerApp, worker: URL, *, scrub: bool) -> WorkerTables | None:
    path = "/tables?scope=worker" + ("&scrub=true" if scrub else "")
    try:
        answer = await state.fetch(app, worker, path)
    except ProblemError:
        return None
    return None if answer is None else msgspec.json.decode(answer, type=WorkerTables)
