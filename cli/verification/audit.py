"""`plexy-ledger audit`: verifies the ledger in endless rounds, alongside the workers.

The audit serves `/metrics` and `/readyz`. `/readyz` answers 200 while nothing differs; otherwise it
answers 503 with the reason. If a token is set, only clients with the token see the metrics and the
reason.

The audit never writes. If something differs, if Kafka does not answer or if the workers lag behind,
the audit reports this and keeps running. If no worker reports the content of its disk, the audit
compares everything else.
"""

import asyncio
import contextlib
import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType
from typing import Final

import msgspec
import structlog
import uvicorn
from aiokafka.errors import KafkaError
from prometheus_client import ProcessCollector
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from cli.errors import CommandError, NotFoldedError
from cli.ports import WantedPort, require_free
from cli.printing import counted
from cli.settings import AuditSettings
from cli.topics.ledger_reader import LedgerReader, open_reader
from cli.verification.follower import Follower, RewrittenError
from cli.verification.replicas import NoReport, Workers, damages, disks_of
from cli.verification.verify import new_truth
from ledger.verification.differences import Difference, DifferenceKind
from ledger.verification.replicas import AllTables
from runtime.access import Token, wrong_host, wrong_token
from runtime.fault import Fault
from runtime.kafka.administration import unreachable
from runtime.kafka.new_connections import EXPIRY_METRIC, NewConnections
from runtime.kafka.topic_looks import TopicsError
from runtime.logs import configure
from runtime.metrics import CONTENT_TYPE, Metrics
from runtime.problems import MEDIA_TYPE, Problem

# The log names at most this many differences of a round; the metrics count all of them.
_MOST_LOGGED: Final = 20
# The workers are asked this often to read their disks, so that any damage is found within a minute.
_SCRUBBED_EVERY_S: Final = 20.0
# A worker restores a damaged partition by itself. So after this time, the audit no longer reports
# the damage.
_DAMAGE_SHOWN_FOR_MS: Final = 10 * 60 * 1000
_STOPPED_WITHIN_S: Final = 5
_NOT_SHOWN: Final = (
    "the reason is in the audit's log; it is also shown here if you send LEDGER_API_TOKEN"
)

_log = structlog.get_logger(__name__)


class AuditMetrics(Metrics):
    """The metrics of the audit for Prometheus."""

    def __init__(self) -> None:
        super().__init__("audit")
        self.differences = self.gauge("differences", "current differences from the log", "kind")
        self.lag = self.gauge("lag_records", "records that the workers have not folded yet")
        self.audited = self.gauge("log_records", "records of the log that were audited")
        self.read = self.gauge("read_records", "records of all topics that were read")
        self.rounds = self.gauge("rounds", "rounds that have compared all new records")
        self.last = self.gauge("last_round_timestamp_seconds", "time of the end of the last round")
        self.took = self.gauge(
            "last_round_seconds", "duration of the last round, including its waits"
        )
        self.replicas = self.gauge(
            "replicas_compared",
            "partitions of tables on the workers' disks that the last round compared",
        )
        self.certificates = self.gauge(*EXPIRY_METRIC, "side")
        for kind in DifferenceKind:
            self.differences.labels(kind=str(kind)).set(0)
        ProcessCollector(registry=self.registry)

    def show(self, differences: list[Difference]) -> None:
        """Set the number of differences of each kind."""
        counts = Counter(found.kind for found in differences)
        for kind in DifferenceKind:
            self.differences.labels(kind=str(kind)).set(counts[kind])


class Audit:
    """The rounds of the audit; ``problem`` is the latest result."""

    def __init__(self, settings: AuditSettings, worker_urls: Sequence[str] = ()) -> None:
        self.metrics = AuditMetrics()
        self.problem: Problem | None = Problem(
            status=503, code="not_audited", detail="the first round is not over yet"
        )
        self.token = settings.api_token
        self._settings = settings
        self._workers = Workers.of(settings, worker_urls)
        self._scrubbed_s = -_SCRUBBED_EVERY_S
        self._tables: AllTables | None = None
        self._disk_trouble = ""
        self._other_settings: Fault | None = None
        self._topic_faults: set[str] = set()
        self._logged: set[Difference] = set()
        # Each of these differences names a partition in which the log of record has lost records
        # that the audit had read.
        self._lost: list[Difference] = []

    async def run(self) -> None:
        """Audit forever; if a round fails temporarily, report the failure and retry the round."""
        while True:
            try:
                with self._reporting():
                    async with open_reader(self._settings) as reader:
                        truth = new_truth(self._settings, (), {})
                        truth.faults += self._lost
                        await self._rounds(reader, Follower(reader, truth))
            except RewrittenError as error:
                self._start_over(error)
            await asyncio.sleep(self._settings.audit_every_s)

    def _start_over(self, error: RewrittenError) -> None:
        """Report that everything is read again; a loss of log records stays reported."""
        if error.topic == self._settings.names.webhooks:
            self._lost.append(error.difference)
        self._set_state("not_audited", f"{error}: the audit reads everything again from the start")

    async def _rounds(self, reader: LedgerReader, follower: Follower) -> None:
        while True:
            # The clients reconnect, so a round that failed continues where it stopped.
            with self._reporting():
                await self._round(reader, follower)
            await asyncio.sleep(self._settings.audit_every_s)

    async def _round(self, reader: LedgerReader, follower: Follower) -> None:
        started = time.monotonic()
        await self._look_at_topics(reader)
        self.metrics.lag.set(await reader.lag())
        await self._compare_settings(reader)
        settled = await reader.settle(self._settings.audit_wait_s)
        answer = await self._ask_workers()
        tables = answer if isinstance(answer, AllTables) else None
        differences = await follower.round(settled, tables)
        self._show_disks(answer, follower)
        # If no worker answered, the damage from the last answer stays reported.
        self._tables = tables or self._tables
        if self._tables is not None:
            since_ms = time.time_ns() // 1_000_000 - _DAMAGE_SHOWN_FOR_MS
            differences += damages(self._tables, since_ms)
        self.metrics.show(differences)
        self.metrics.audited.set(sum(settled.values()))
        self.metrics.read.set(follower.records)
        self.metrics.rounds.inc()
        self.metrics.last.set_to_current_time()
        self.metrics.took.set(time.monotonic() - started)
        self._judge(differences)

    async def _look_at_topics(self, reader: LedgerReader) -> None:
        """Raise ``TopicsError`` for a fault that prevents the audit; log any other fault once."""
        seen = await reader.examine(self._settings)
        for fault in seen.fatal:
            raise TopicsError(fault)
        faults = {str(fault) for _, fault in seen.by_code()}
        for each in sorted(faults - self._topic_faults):
            _log.warning("a topic is not as expected", fault=each)
        self._topic_faults = faults

    async def _compare_settings(self, reader: LedgerReader) -> None:
        """If the workers and the audit have different settings, log this once.

        Different settings may be the reason of differences in the tables.
        """
        other = await reader.difference_from_workers(self._settings)
        if other and other != self._other_settings:
            _log.warning("other_settings", detail=str(other))
        self._other_settings = other

    async def _ask_workers(self) -> AllTables | NoReport:
        """Ask the workers for the content of their disks.

        Every ``_SCRUBBED_EVERY_S``, also ask them to scrub the disks, which means to read the whole
        disks.
        """
        now_s = time.monotonic()
        scrub = now_s - self._scrubbed_s >= _SCRUBBED_EVERY_S
        if scrub:
            self._scrubbed_s = now_s
        return await self._workers.ask(scrub=scrub)

    def _show_disks(self, answer: AllTables | NoReport, follower: Follower) -> None:
        """Count the replicas that were compared; log once why other replicas were left out."""
        disks = disks_of(answer, follower.disks)
        self.metrics.replicas.set(disks.replicas)
        if disks.trouble and disks.trouble != self._disk_trouble:
            _log.warning("disks_not_compared", detail=disks.trouble)
        self._disk_trouble = disks.trouble

    def _judge(self, differences: list[Difference]) -> None:
        new = [found for found in differences if found not in self._logged]
        for found in new[:_MOST_LOGGED]:
            _log.error(
                "difference",
                kind=found.kind,
                subject=found.subject,
                detail=found.detail,
                events=[f"{e.event_id} at {e.partition}@{e.offset}" for e in found.events],
            )
        self._logged = set(differences)
        if differences:
            count = counted(len(differences), "difference")
            self._set_state("drift", f"{count}, the first: {differences[0]}")
        else:
            self._set_state(None, "nothing differs from the log of record")

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        """Report a known failure of the block and continue; any other error is a bug."""
        try:
            yield
        except KafkaError as error:
            self._set_state("kafka_unavailable", str(unreachable(self._settings, error)))
        except NotFoldedError as error:
            self._set_state("workers_behind", str(error))
        except (CommandError, TopicsError) as error:
            silent = isinstance(error.__cause__, KafkaError)
            self._set_state("kafka_unavailable" if silent else "cannot_audit", str(error))

    def _set_state(self, code: str | None, detail: str) -> None:
        """Set the state; a difference stays reported until a round shows that it is gone."""
        was = self.problem.code if self.problem else None
        if was != code:
            (_log.warning if code else _log.info)("audit", state=code or "clean", detail=detail)
        if was == "drift" and code not in {None, "drift"}:
            return
        self.problem = Problem(status=503, code=code, detail=detail) if code else None


def create_app(audit: Audit) -> Starlette:
    """Return an application that serves the probes and the metrics."""

    async def ready(request: Request) -> Response:
        if audit.problem is None:
            return Response(b'{"status":"ready"}', media_type="application/json")
        if _wrong_token(request, audit.token):
            # The detail may contain ids of orders and amounts. A client that has no token must not
            # see them.
            return _answer(msgspec.structs.replace(audit.problem, detail=_NOT_SHOWN))
        return _answer(audit.problem)

    async def alive(_request: Request) -> Response:
        return Response(b'{"status":"alive"}', media_type="application/json")

    async def metrics(request: Request) -> Response:
        problem = _wrong_token(request, audit.token)
        if problem:
            return _answer(problem, {"WWW-Authenticate": "Bearer"})
        return Response(audit.metrics.page(), headers={"Content-Type": CONTENT_TYPE})

    routes = [Route("/readyz", ready), Route("/healthz", alive), Route("/metrics", metrics)]
    return Starlette(routes=routes, middleware=[Middleware(_Door, token=audit.token)])


class _Door:
    """Refuses a request with a wrong ``Host`` header; see ``runtime.access``."""

    def __init__(self, app: ASGIApp, token: Token | None) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        problem = wrong_host(Headers(scope=scope).getlist("host"), self._token)
        await (_answer(problem) if problem else self._app)(scope, receive, send)


def _wrong_token(request: Request, token: Token | None) -> Problem | None:
    return wrong_token(request.headers.get("authorization", ""), token)


def _answer(problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    return Response(problem.encode(), problem.status, headers, media_type=MEDIA_TYPE)


def audit(environment: Mapping[str, str], worker_urls: Sequence[str] = ()) -> None:
    """Audit until a signal ends the process."""
    settings = AuditSettings.from_environment(environment)
    configure(settings.log_format, settings.log_level)
    require_free(
        [WantedPort("audit", settings.audit_host, settings.audit_port, "LEDGER_AUDIT_PORT")]
    )
    # After its shutdown, uvicorn again raises the signal that it caught. `_end` then ends the
    # process with exit code 0.
    signal.signal(signal.SIGTERM, _end)
    asyncio.run(_serve(settings, worker_urls))


async def _serve(settings: AuditSettings, worker_urls: Sequence[str]) -> None:
    audit = Audit(settings, worker_urls)
    config = uvicorn.Config(
        create_app(audit),
        host=settings.audit_host,
        port=settings.audit_port,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_STOPPED_WITHIN_S,
    )
    server = uvicorn.Server(config)
    connections = NewConnections(
        settings, lambda side, at_s: audit.metrics.certificates.labels(side).set(at_s)
    )
    tasks = [asyncio.create_task(each) for each in (audit.run(), connections.watch())]

    def stop(task: asyncio.Task[None]) -> None:
        # An unknown error is a bug, so the server must end instead of serving an old result.
        if task.cancelled() or task.exception():
            server.should_exit = True

    for task in tasks:
        task.add_done_callback(stop)
    _log.info("listening", host=settings.audit_host, port=settings.audit_port)
    try:
        await server.serve()
    finally:
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks)


def _end(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)
