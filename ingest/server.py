"""Serves ingress with uvicorn until SIGTERM, in one process or in several processes on one port.

Input: settings. Output: a process that serves, and that exits with 0 after it has answered every
accepted delivery. Invariants: ingress does not start if another program listens on the same port;
if one of several processes ends by itself, all processes end, and the exit code is 1; and no
process outlives its parent.

With several processes, ingress can use several processors of a machine. Each process opens its own
listener on the port (SO_REUSEPORT), and Linux spreads new connections over the listeners. Each
process has its own limits. The parent process serves the metrics of all processes.
"""

import contextlib
import gc
import os
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Final

import structlog
import uvicorn
from starlette.applications import Starlette

from ingest.app import create_app
from ingest.connection import bounded_protocol
from ingest.limits import Limits
from ingest.metrics import IngressMetrics, Numbers, ProcessCounts, new_rows, serve_metrics
from ingest.settings import LONGEST_ANSWER_S, IngestSettings
from runtime import internals
from runtime.addresses import listener
from runtime.logs import configure

# A proxy usually keeps an idle connection for 60 s. The server waits longer, so that the sender
# closes first and no delivery is sent on a connection that was just closed.
_KEEP_ALIVE_S: Final = 75
_BACKLOG: Final = 2048
# The garbage collector runs after this many new objects. By Python's default, it would run after
# 700 objects, which is about every twenty deliveries.
_COLLECT_AFTER: Final = 20_000
_ENDING: Final = (signal.SIGTERM, signal.SIGINT)
# If the server of a process has not started, SIGTERM itself kills the process, and the exit code is
# negative.
_CLEAN: Final = (0, -signal.SIGTERM)

internals.check()
_log = structlog.get_logger(__name__)


def serve(settings: IngestSettings) -> None:
    """Serve until a signal arrives; raise ``SettingsError`` if the address is not available."""
    configure(settings.log_format, settings.log_level)
    several = settings.ingest_processes > 1
    rows = new_rows(settings.ingest_processes)
    number = 0
    if several:
        # Another ingress could join a shared port. So the port is first bound exclusively, which
        # fails if another program listens on it.
        _listener(settings).close()
        number = _split(settings.ingest_processes, lambda: _serve_metrics(settings, rows))
    else:
        _serve_metrics(settings, rows)
    # If no metrics are served, no task needs to ask Kafka each second.
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
        # After its shutdown, uvicorn raises the same signal again, and ``_end`` exits with 0.
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
    """Listen on ingress' address; if ``shared``, several of our own processes may listen there."""
    variables = ("LEDGER_INGEST_HOST", "LEDGER_INGEST_PORT")
    host, port = settings.ingest_host, settings.ingest_port
    return listener(variables, host, port, backlog=_BACKLOG, shared=shared)


def _end(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


def _split(count: int, in_parent: Callable[[], None]) -> int:
    """Fork ``count`` processes; in each new process, return its number, counted from 0.

    The parent process calls ``in_parent``, waits for the new processes, and raises ``SystemExit``.
    """
    children: set[int] = set()
    alive, held = os.pipe()

    def end(_signal: int, _frame: FrameType | None) -> None:
        ending.set()
        _terminate(children)

    ending = threading.Event()
    # Signals are blocked until all processes exist. Otherwise a signal could reach only some of
    # them, or run the parent's handler in a new process.
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    for number in _ENDING:
        signal.signal(number, end)
    for child in range(count):
        pid = os.fork()
        if pid == 0:
            _begin(alive, held)
            return child
        children.add(pid)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
    # Threads do not survive a fork, so ``in_parent``, which may start threads, is called only after
    # all forks. If ``in_parent`` raises an exception, the new processes end with this process.
    in_parent()
    raise SystemExit(_wait(children, ending))


def _begin(alive: int, held: int) -> None:
    """Set up a new process, which ignores Ctrl-C and ends with its parent."""
    for number in _ENDING:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
    os.setsid()
    os.close(held)

    def end_with_parent() -> None:
        # Only the parent holds the pipe's other end, so this call returns when the parent ends.
        os.read(alive, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=end_with_parent, name="parent", daemon=True).start()


def _wait(children: set[int], ending: threading.Event) -> int:
    """Wait until all processes have ended; return 0 if each ended cleanly after a signal."""
    result = 0
    while children:
        pid, status = os.wait()
        children.discard(pid)
        code = os.waitstatus_to_exitcode(status)
        if not ending.is_set():
            _log.error(
                "process_ended",
                pid=pid,
                exit_code=code,
                remedy="all processes end; restart ingress",
            )
            ending.set()
            _terminate(children)
            result = 1
        elif code not in _CLEAN:
            result = 1
    return result


def _terminate(children: set[int]) -> None:
    for pid in list(children):
        # A process that has just ended may still be in ``children``.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
