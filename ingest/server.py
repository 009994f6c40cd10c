"""Serve ingress with uvicorn, until SIGTERM.

In: settings. Out: a process that serves, and ends with 0 after it has answered what it accepted.
Never: a start beside another program on the same port.
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
from ingest.metrics import IngressMetrics, Numbers, Tally, new_rows, serve_metrics
from ingest.processes import split
from ingest.settings import LONGEST_ANSWER_S, IngestSettings
from runtime import internals
from runtime.addresses import listener
from runtime.logs import configure

# Longer than the 60 s for which a proxy in front usually keeps an idle connection: whoever sends
# should be the one to close it, or a delivery meets a connection that was closed just now.
_KEEP_ALIVE_S: Final = 75
_BACKLOG: Final = 2048
# So many more objects that may be part of a cycle; Python's own is 700, some twenty deliveries.
_COLLECT_AFTER: Final = 20_000

internals.check()
_log = structlog.get_logger(__name__)


def serve(settings: IngestSettings) -> None:
    """Serve until a signal ends it; ``SettingsError`` if the address can't be had."""
    configure(settings.log_format, settings.log_level)
    several = settings.ingest_processes > 1
    rows = new_rows(settings.ingest_processes)
    number = 0
    if several:
        # Shared among ours, the port would be shared with another ingress too: so first, alone.
        _listener(settings).close()
        number = split(settings.ingest_processes, lambda: _serve_metrics(settings, rows))
    else:
        _serve_metrics(settings, rows)
    # Where nobody asks for metrics, nothing looks at Kafka each second for them.
    tally = None if settings.ingest_metrics_port is None else Tally(rows[number])
    app = create_app(settings, tally=tally)
    config = server_config(app, Limits.of(settings.answer_within_s))
    with _listener(settings, shared=several) as listening:
        internals.log_versions()
        _log.info("listening", host=settings.ingest_host, port=settings.ingest_port)
        # What is there now stays: left out of its rounds, the collector has nearly nothing to look
        # at, and a delivery leaves no cycle behind that it would have to find soon.
        gc.collect()
        gc.freeze()
        gc.set_threshold(_COLLECT_AFTER)
        # uvicorn raises the signal that stopped it once more, after it has stopped.
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
    """Return how uvicorn serves ingress, with connections that are bounded by ``limits``."""
    return uvicorn.Config(
        app,
        loop="uvloop",
        http=bounded_protocol(limits, app.state.direct),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        # Nobody asks who sent a request: its signature says more than its address.
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=LONGEST_ANSWER_S,
    )


def _listener(settings: IngestSettings, *, shared: bool = False) -> socket.socket:
    """Bind the address before anything else is started; ``shared`` among our own processes."""
    variables = ("LEDGER_INGEST_HOST", "LEDGER_INGEST_PORT")
    host, port = settings.ingest_host, settings.ingest_port
    return listener(variables, host, port, backlog=_BACKLOG, shared=shared)


def _end(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)
