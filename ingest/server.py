"""Serves ingress with uvicorn until SIGTERM.

Input: settings. Output: a process that serves, and that exits with 0 after it has answered every
accepted delivery. Invariant: ingress does not start if another program listens on the same port.
"""

import contextlib
import gc
import signal
import socket
from collections.abc import Sequence
from types import FrameType
from typing import Final

import structlog
import uvicorn
from starlette.applications import Starlette

from ingest.app import create_app
from ingest.connection import bounded_protocol
from ingest.limits import Limits
from ingest.metrics import IngressMetrics, Numbers, ProcessCounts, new_rows, serve_metrics
from ingest.processes import split
from ingest.settings import LONGEST_ANSWER_S, IngestSettings
from runtime import internals
from runtime.addresses import listener
from runtime.logs import configure

# A proxy usually keeps an idle connection for 60 s. The server waits longer, so that the sender
# closes first and no delivery is sent on a connection that was just closed.
_KEEP_ALIVE_S: Final = 75
_BACKLOG: Final = 2048
# The collector runs after this many new objects; Python's default, 700, is about twenty deliveries.
_COLLECT_AFTER: Final = 20_000

internals.check()
_log = structlog.get_logger(__name__)


def serve(settings: IngestSettings) -> None:
    """Serve until a signal arrives; raise ``SettingsError`` if the address is not available."""
    configure(settings.log_format, settings.log_level)
    several = settings.ingest_processes > 1
    rows = new_rows(settings.ingest_processes)
    number = 0
    if several:
        # Another ingress could join a shared port, so bind the port exclusively first.
        _listener(settings).close()
        number = split(settings.ingest_processes, lambda: _serve_metrics(settings, rows))
    else:
        _serve_metrics(settings, rows)
    # Without metrics, nothing needs to ask Kafka each second.
    counts = None if settings.ingest_metrics_port is None else ProcessCounts(rows[number])
    app = create_app(settings, counts=counts)
    config = server_config(app, Limits.of(settings.answer_within_s))
    with _listener(settings, shared=several) as listening:
        internals.log_versions()
        _log.info("listening", host=settings.ingest_host, port=settings.ingest_port)
        # Freeze the objects made at start-up so that the garbage collector never scans them. A
        # delivery leaves no cycles, so the collector need not run often.
        gc.collect()
        gc.freeze()
        gc.set_threshold(_COLLECT_AFTER)
        # After its shutdown, uvicorn raises the same signal again.
        signal.signal(signal.SIGTERM, _end)
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listening])


def _serve_metrics(settings: IngestSettings, rows: Sequence[Numbers]) -> None:
    port = settings.ingest_metrics_port
    if port is not None:
        metrics = IngressMetrics(rows, settings.max_in_flight)
        serve_metrics(metrics, settings.ingest_metrics_host, port)
        _log.info("metrics", host=settings.ingest_metrics_host, port=port)


def server_config(app: Starlette, limits: Limits) -> uvicorn.Config:
    """Return uvicorn's configuration for ingress, with ``limits`` for each connection."""
    return uvicorn.Config(
        app,
        loop="uvloop",
        http=bounded_protocol(limits, app.state.direct),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        # A sender's address is not needed, because the signature identifies the sender.
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=LONGEST_ANSWER_S,
    )


def _listener(settings: IngestSettings, *, shared: bool = False) -> socket.socket:
    """Listen on ingress' address; if ``shared``, several of our own processes may do so."""
    variables = ("LEDGER_INGEST_HOST", "LEDGER_INGEST_PORT")
    host, port = settings.ingest_host, settings.ingest_port
    return listener(variables, host, port, backlog=_BACKLOG, shared=shared)


def _end(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)
