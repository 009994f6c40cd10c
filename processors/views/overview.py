"""The state of the ledger: one document about all workers, on request or as a stream.

Input: each worker's counts since the worker's start, the sums over the worker's tables, and the
worker's lag. Output: ``GET /overview``, and ``GET /live``, which sends the overview each second
(server-sent events). Invariants: If a worker is not ready or does not answer, the overview says so,
and the answer is not a 503. No request is sent to Kafka for the overview. The cost of the overview
does not grow with the number of readers.
"""

import asyncio
import time
from collections.abc import Iterable
from typing import Any, Final

import msgspec
import structlog
from aiohttp import web
from faust.web import Request, View
from msgspec.structs import astuple
from yarl import URL

from ledger.accounting.activity import Activity, add
from ledger.journal import CHARGEBACKS, DISPUTED, PLEXY, REFUNDS, SALES
from ledger.orders import Totals
from processors.metrics import values
from processors.recent import SECONDS
from processors.topology import LedgerApp
from processors.views import state
from processors.views.answers import ProblemError, json_answer
from processors.views.workers import asks_this_one, is_whole, other_workers

log = structlog.get_logger(__name__)

_EVERY_S: Final = 1.0
_ANSWER_WITHIN_S: Final = 2.0
# Each watcher costs a connection and one write a second.
MOST_WATCHERS: Final = 100


class WorkerState(msgspec.Struct, kw_only=True):
    """The state of one worker.

    ``reason`` says why the worker is not ready; ``since_ms`` is the time of the worker's start.
    ``standbys`` are the partitions that other workers fold, and of which this worker keeps a copy.
    """

    address: str
    ready: bool
    reason: str | None = None
    since_ms: int | None = None
    partitions: list[int] = []
    standbys: list[int] = []


class Overview(msgspec.Struct, kw_only=True):
    """All workers, and their sums.

    ``ready`` is true if every partition has a ready worker; ``missing`` lists the partitions that
    have no ready worker. ``outcomes``, ``types`` and ``rejected`` count records since each worker's
    start. ``per_second`` has the number of records in each of the last seconds; the latest second
    is last. ``lag`` is the number of unfolded records, by hop. ``totals`` has the sums by currency.
    ``anomalies`` has the number of orders by anomaly; under ``any``, it has the number of orders
    that have any anomaly. ``totals`` and ``anomalies`` cover all folded events. Both are ``None``
    while a worker still sums its tables, or if a partition has no worker or two workers.
    """

    at_ms: int
    ready: bool
    missing: list[int]
    workers: list[WorkerState]
    outcomes: dict[str, int]
    types: dict[str, int]
    rejected: dict[str, int]
    per_second: list[int]
    lag: dict[str, int]
    totals: dict[str, Totals] | None
    anomalies: dict[str, int] | None


class Overviews:
    """Makes the overview of all workers, at most twice a second for any number of readers.

    ``watchers`` is the number of readers of the stream.
    """

    def __init__(self, app: LedgerApp) -> None:
        self.watchers = 0
        self._app = app
        self._lock = asyncio.Lock()
        self._made: bytes = b""
        self._made_at_s = float("-inf")

    async def now(self) -> bytes:
        """Return the overview of all workers, as JSON."""
        async with self._lock:
            if time.monotonic() - self._made_at_s > _EVERY_S / 2:
                self._made = msgspec.json.encode(await self._all_parts())
                self._made_at_s = time.monotonic()
            return self._made

    def here(self) -> Overview:
        """Return the overview of only this worker."""
        app = self._app
        reason = state.unready(app)
        worker = WorkerState(
            address=str(app.conf.canonical_url),
            ready=reason is None,
            reason=reason,
            since_ms=app.recent.since_ms,
            partitions=app.posted.active,
            standbys=_standbys(app),
        )
        posted = app.posted.here() if worker.ready else None
        anomalies = app.anomalies.here() if worker.ready else None
        return Overview(
            at_ms=int(time.time() * 1000),
            ready=worker.ready,
            missing=[],
            workers=[worker],
            outcomes=values(app.metrics.records),
            types=values(app.metrics.folded) | values(app.metrics.unfolded),
            rejected=values(app.metrics.rejected),
            per_second=app.recent.counts,
            lag=_lag(app) if worker.ready else {},
            totals=None if posted is None else _totals([each.activity for each in posted]),
            anomalies=None if anomalies is None else _summed(each.counts() for each in anomalies),
        )

    async def _all_parts(self) -> Overview:
        others = await asyncio.gather(*map(self._part_of, other_workers(self._app)))
        return merged([self.here(), *others], self._app.settings.partitions)

    async def _part_of(self, worker: URL) -> Overview:
        try:
            async with asyncio.timeout(_ANSWER_WITHIN_S):
                answer = await state.fetch(self._app, worker, "/overview?scope=worker")
                return msgspec.json.decode(answer or b"", type=Overview)
        except (ProblemError, TimeoutError, msgspec.DecodeError):
            return _unreachable(worker)


def merged(each: list[Overview], partitions: int) -> Overview:
    """Merge several workers' overviews; together they should cover all ``partitions``."""
    workers = sorted((w for one in each for w in one.workers), key=lambda worker: worker.address)
    served = [p for worker in workers if worker.ready for p in worker.partitions]
    whole = is_whole(served, partitions)
    missing = sorted(set(range(partitions)) - set(served))
    return Overview(
        at_ms=max(one.at_ms for one in each),
        ready=not missing,
        missing=missing,
        workers=workers,
        outcomes=_summed(one.outcomes for one in each),
        types=_summed(one.types for one in each),
        rejected=_summed(one.rejected for one in each),
        per_second=_by_second([one.per_second for one in each]),
        lag=_summed(one.lag for one in each),
        totals=_summed_totals([one.totals for one in each]) if whole else None,
        anomalies=_all_summed([one.anomalies for one in each]) if whole else None,
    )


def add_pages(app: LedgerApp) -> None:
    """Declare the pages."""
    overviews = Overviews(app)

    @app.page("/overview")
    async def get_overview(_view: View, request: Request) -> Any:
        """Return the overview of all workers, or of only this worker if the request says so."""
        if asks_this_one(request):
            return json_answer(msgspec.json.encode(overviews.here()))
        return json_answer(await overviews.now())

    @app.page("/live")
    async def get_live(_view: View, request: Any) -> Any:
        """Send the overview each second, until the client or the worker ends the stream."""
        if overviews.watchers >= MOST_WATCHERS:
            detail = f"{MOST_WATCHERS} clients already follow this worker; ask another worker"
            raise ProblemError(503, "too_many_watchers", detail)
        overviews.watchers += 1
        try:
            return await follow(request)
        finally:
            overviews.watchers -= 1

    async def follow(request: Any) -> Any:
        # The first overview is made before the stream begins. Once the stream has begun, an error
        # can no longer be sent as the answer.
        document = await overviews.now()
        stream = web.StreamResponse(
            headers={
                "Content-Type": "text/event-stream",
                "Cache-Control": "no-store",
                # This header tells proxies not to buffer the stream. A proxy that buffers whole
                # answers would wait forever, because the stream does not end.
                "X-Accel-Buffering": "no",
            }
        )
        try:
            await stream.prepare(request)
            if request.method == "HEAD":
                return stream
            while not app.should_stop:
                await stream.write(b"data: " + document + b"\n\n")
                await app.sleep(_EVERY_S)
                document = await overviews.now()
        except ConnectionError:
            log.debug("the client left the stream", client=request.remote)
        return stream


def _standbys(app: LedgerApp) -> list[int]:
    changelog = app.chunk_tables["seen"].changelog_name
    return sorted(tp.partition for tp in app.assignor.assigned_standbys() if tp.topic == changelog)


def _lag(app: LedgerApp) -> dict[str, int]:
    lag = dict.fromkeys(app.hops.values(), 0)
    for tp in app.consumer.assignment():
        if tp.topic in app.hops:
            lag[app.hops[tp.topic]] += app.consumer.lag(tp) or 0
    return lag


def _totals(posted: list[Activity]) -> dict[str, Totals]:
    sums: dict[tuple[str, str], int] = {}
    for activity in posted:
        for (account, currency, _), amount in activity.items():
            add(sums, {(account, currency): amount})
    return {
        currency: Totals(
            # Income is a credit, and a credit is negative.
            paid=-sums.get((SALES, currency), 0),
            refunded=sums.get((REFUNDS, currency), 0),
            net=sums.get((PLEXY, currency), 0),
            disputed=sums.get((DISPUTED, currency), 0),
            charged_back=sums.get((CHARGEBACKS, currency), 0),
        )
        for currency in sorted({currency for _, currency in sums})
    }


def _unreachable(worker: URL) -> Overview:
    """Return the overview of a worker that does not answer."""
    reason = "the worker does not answer"
    return Overview(
        at_ms=0,
        ready=False,
        missing=[],
        workers=[WorkerState(address=str(worker.origin()), ready=False, reason=reason)],
        outcomes={},
        types={},
        rejected={},
        per_second=[],
        lag={},
        totals=None,
        anomalies=None,
    )


def _summed(each: Iterable[dict[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for one in each:
        add(total, one)
    return dict(sorted(total.items()))


def _all_summed(each: list[dict[str, int] | None]) -> dict[str, int] | None:
    known = [one for one in each if one is not None]
    if len(known) < len(each):
        return None
    return _summed(known)


def _summed_totals(each: list[dict[str, Totals] | None]) -> dict[str, Totals] | None:
    known = [one for one in each if one is not None]
    if len(known) < len(each):
        return None
    total: dict[str, Totals] = {}
    for one in known:
        for currency, more in one.items():
            had = total.get(currency, Totals(0, 0, 0))
            total[currency] = Totals(*map(sum, zip(astuple(had), astuple(more), strict=True)))
    return dict(sorted(total.items()))


def _by_second(each: list[list[int]]) -> list[int]:
    """Add up the workers' counts for each second; all lists end with the same second."""
    length = min(max(map(len, each)), SECONDS)
    padded = [[0] * (length - len(one)) + one for one in each]
    return [sum(second) for second in zip(*padded, strict=True)]
