"""Defines the measured servers, and lists them in ``SERVERS``.

Each server is a process with its own port, and runs from ``start`` to ``end``. Every wait for a
server has a time limit. If a server died, the error shows the last lines of its log.
"""

import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import ClassVar, Final

from bench.ingest.load import SECRET
from bench.measured import PROJECT, Measured
from bench.stage import Setup

_READY_WITHIN_S: Final = 30.0
_READY_POLL_S: Final = 0.05
_GO_SOURCE: Final = Path(__file__).parent / "go_handler"
_GO_PROGRAM: Final = PROJECT / "build" / "bench" / "go-handler"


class Server(Measured):
    """One server, which writes to its own topics."""

    name: ClassVar[str]
    """The server's key in ``build/bench.json``."""
    title: ClassVar[str]
    """The server's name in the table."""
    keeps: ClassVar[bool] = True
    """Whether each delivery that the server acknowledged must be in the log."""

    def __init__(self, place: Setup) -> None:
        super().__init__(place)
        self.port = place.web_port

    @classmethod
    def prepare(cls) -> str | None:
        """Prepare the server; return the reason if it can't be measured, otherwise ``None``."""
        return None

    def environment(self) -> Mapping[str, str]:
        """Return the additional environment variables; simple handlers need no other variables."""
        return {
            "BENCH_BOOTSTRAP": self.place.bootstrap,
            "BENCH_TOPIC": self.place.names.webhooks,
            "BENCH_SECRET": SECRET,
            "BENCH_PORT": str(self.port),
        }

    def start(self) -> None:
        """Start the server, and return once it answers."""
        self.launch()
        deadline = time.monotonic() + _READY_WITHIN_S
        while not self._answers():
            self.ensure_runs()
            if time.monotonic() > deadline:
                raise self.failed(f"did not answer within {_READY_WITHIN_S:.0f} s")
            time.sleep(_READY_POLL_S)

    def _answers(self) -> bool:
        """Request the readiness page; a running server without such a page answers 404."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=5):
                return True
        except urllib.error.HTTPError as error:
            return error.code == HTTPStatus.NOT_FOUND
        except OSError:
            return False


class LedgerIngress(Server):
    """`plexy-ledger ingest` with its default settings."""

    name = "ours"
    title = "plexy-ledger ingest"

    def command(self) -> list[str]:
        """Return the command line of the server."""
        return [sys.executable, "-m", "cli", "ingest"]

    def environment(self) -> Mapping[str, str]:
        """Return the address, the topics and the secret; all other settings have their defaults."""
        return {
            "LEDGER_KAFKA_BOOTSTRAP": self.place.bootstrap,
            "LEDGER_TOPIC_PREFIX": self.place.prefix,
            "LEDGER_INGEST_PORT": str(self.port),
            "LEDGER_WEBHOOK_SECRETS": SECRET,
        }


class _OnUvicorn(Server):
    """A module of this package that uses the same HTTP server, event loop and parser as ingress."""

    module: ClassVar[str]

    def command(self) -> list[str]:
        """Return the command line of the server."""
        return [
            *(sys.executable, "-m", "uvicorn", f"bench.ingest.{self.module}:app"),
            *("--port", str(self.port), "--loop", "uvloop", "--http", "httptools"),
            *("--ws", "none", "--log-level", "warning", "--no-access-log"),
            *("--no-server-header", "--no-proxy-headers", "--timeout-keep-alive", "75"),
        ]


class EmptyHandler(_OnUvicorn):
    """The module ``empty``: it measures only the HTTP server and the framework."""

    name = "empty_handler"
    title = "empty handler"
    module = "empty"
    keeps = False


class PlainHandler(_OnUvicorn):
    """The module ``plain``: a handler as the documentation of Starlette and aiokafka shows it."""

    name = "plain_handler"
    title = "plain handler"
    module = "plain"


class GoHandler(Server):
    """The program ``go_handler``: a handler in Go, whose Kafka client has its own threads."""

    name = "go"
    title = "Go, franz-go"

    @classmethod
    def prepare(cls) -> str | None:
        """Build the handler; the build is quick if the source has not changed."""
        go = shutil.which("go")
        if go is None:
            return "Go is not installed, so the Go handler is left out"
        if not _GO_PROGRAM.exists():
            print("building the Go handler, once ...", file=sys.stderr)
        _GO_PROGRAM.parent.mkdir(parents=True, exist_ok=True)
        command = [go, "build", "-o", str(_GO_PROGRAM), "."]
        built = subprocess.run(  # noqa: S603 - the command is ours
            command, cwd=_GO_SOURCE, capture_output=True, text=True, check=False
        )
        if built.returncode:
            return f"the Go handler is left out, because it can't be built: {built.stderr}"
        return None

    def command(self) -> list[str]:
        """Return the command line of the server."""
        return [str(_GO_PROGRAM)]


SERVERS: Final[tuple[type[Server], ...]] = (LedgerIngress, EmptyHandler, PlainHandler, GoHandler)
