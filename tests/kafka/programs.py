"""Runs commands other than `worker` as processes: an audit, an ingress, or `run`."""

import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx

from cli.kafka.process import free_port
from tests.kafka.harness import WorkerProcess, event, until

FAUST = [sys.executable, "-m", "faust", "-A", "processors.app", "worker", "-l", "warn"]
INGEST = [sys.executable, "-m", "cli", "ingest"]
# The caller appends the port.
UVICORN = [sys.executable, "-m", "uvicorn", "ingest.app:app", "--port"]


def program(name: str, env: Mapping[str, str], *arguments: str) -> WorkerProcess:
    """Return a process, not yet started, that runs one of our commands and has its own log file."""
    started = WorkerProcess(env, [sys.executable, "-m", "cli", name, *arguments])
    started.log_file = started.log_file.with_name(f"{name}.log")
    return started


def start_piped(env: Mapping[str, str], *arguments: object) -> subprocess.Popen[str]:
    """Start a command; its standard output and standard error go to the same pipe."""
    return subprocess.Popen(
        [sys.executable, "-m", "cli", *map(str, arguments)],
        env=os.environ | dict(env),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ask_ingress(env: Mapping[str, str], path: str) -> tuple[int, str]:
    """Return the status and text of ingress's answer, or (0, "") if ingress does not listen."""
    url = f"http://127.0.0.1:{env['LEDGER_INGEST_PORT']}{path}"
    try:
        answer = httpx.get(url, trust_env=False, timeout=30)
    except httpx.TransportError:
        return 0, ""
    return answer.status_code, answer.text


def wait_ingress(ingress: WorkerProcess) -> None:
    """Wait until an ingress is ready; fail at once if it has ended."""

    def ready() -> bool:
        assert ingress.process
        assert ingress.process.poll() is None, f"ingress died:\n{ingress.tail()}"
        return ask_ingress(ingress.env, "/readyz")[0] == 200

    until(ready, within_s=60, what="readiness of ingress")


def post(env: Mapping[str, str], number: int) -> httpx.Response:
    url = f"http://127.0.0.1:{env['LEDGER_INGEST_PORT']}/webhooks/plexy"
    return httpx.post(url, json=paid(number), trust_env=False, timeout=30)


def paid(number: int) -> dict[str, object]:
    return event(number, merchantReference=f"ord_{number}")


def wait_refused(env: Mapping[str, str], *words: str) -> None:
    """Wait until ingress answers a readiness probe and a delivery with 503 and these words."""

    def refused() -> bool:
        status, page = ask_ingress(env, "/readyz")
        return status == 503 and all(word in json.loads(page)["detail"] for word in words)

    def not_kept() -> bool:
        answer = post(env, 1)
        assert answer.status_code == 503, answer.text
        return all(word in answer.json()["detail"] for word in words)

    # Between the two requests, ingress may find a different reason. So both requests are repeated.
    until(lambda: refused() and not_kept(), within_s=30, what=f"503 with {words}")


class AuditProcess(WorkerProcess):
    """An audit in its own process; it asks the worker whose environment is ``env``."""

    def __init__(self, env: Mapping[str, str], folder: Path) -> None:
        port, worker = free_port(), f"http://127.0.0.1:{env['LEDGER_WEB_PORT']}"
        usual = {"LEDGER_AUDIT_EVERY_S": "0.1", "LEDGER_AUDIT_WAIT_S": "3"}
        mine = {
            "LEDGER_DATA_DIR": str(folder),
            "LEDGER_WEB_PORT": str(port),
            "LEDGER_AUDIT_PORT": str(port),
        }
        command = [sys.executable, "-m", "cli", "audit", "--worker", worker]
        super().__init__({**usual, **env, **mine}, command)

    def metrics(self) -> dict[str, float]:
        url = f"http://127.0.0.1:{self.env['LEDGER_AUDIT_PORT']}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            text = answer.read().decode()
        lines = re.findall(r"(?m)^plexy_ledger_audit_(\S+) (\S+)$", text)
        return {name: float(value) for name, value in lines}

    def wait_rounds(self, more: int = 2, within_s: float = 30) -> dict[str, float]:
        """Wait until the audit has finished ``more`` further rounds; return its metrics.

        By then, the audit has judged all data that exists at the time of the call.
        """
        wanted = self.metrics()["rounds"] + more
        until(
            lambda: self.metrics()["rounds"] >= wanted, within_s=within_s, what=f"{wanted} rounds"
        )
        return self.metrics()


def drift(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return an audit's number of differences for each kind that has differences."""
    return {name: n for name, n in metrics.items() if name.startswith("differences") and n}


class Run:
    """A process of `plexy-ledger run` on free ports; its output goes to files."""

    def __init__(self, folder: Path, command: str = "run", **settings: object) -> None:
        self.folder = folder
        kept = {name: text for name, text in os.environ.items() if not name.startswith("LEDGER_")}
        if cache := os.environ.get("LEDGER_KAFKA_CACHE"):
            kept["LEDGER_KAFKA_CACHE"] = cache
        ours = {
            # This path is relative, because the default path is relative, too.
            "LEDGER_DATA_DIR": "data",
            "LEDGER_KAFKA_PORT": free_port(),
            "LEDGER_INGEST_PORT": free_port(),
            "LEDGER_INGEST_METRICS_PORT": free_port(),
            "LEDGER_WEB_PORT": free_port(),
            **settings,
        }
        folder.mkdir(exist_ok=True)
        with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cli", command],
                cwd=folder,
                env=kept | {name: str(value) for name, value in ours.items()},
                stdout=out,
                stderr=err,
            )

    @property
    def out(self) -> str:
        return (self.folder / "out").read_text()

    @property
    def err(self) -> str:
        return (self.folder / "err").read_text()

    def wait_started(self) -> None:
        def started() -> bool:
            assert self.process.poll() is None, self.err
            return "Look at its order" in self.out

        self.until(started, within_s=120, what="the lines to paste")

    def until(self, condition: Callable[[], object], *, within_s: float, what: str) -> None:
        """Wait for a condition; if the wait fails, add the end of the log to the error."""
        try:
            until(condition, within_s=within_s, what=what)
        except AssertionError as error:
            raise AssertionError(f"{error}; the log ends with:\n{self.err[-5000:]}") from None

    def line(self, beginning: str) -> str:
        (line,) = [line for line in self.out.splitlines() if line.startswith(beginning)]
        return line

    def setting(self, name: str) -> str:
        """Return the value of a setting in the environment that the process was started with."""
        environment = Path(f"/proc/{self.process.pid}/environ").read_text().split("\0")
        (found,) = [text for text in environment if text.startswith(f"{name}=")]
        return found.partition("=")[2]

    def children(self) -> dict[int, str]:
        """Return the children's process ids, each with its command line."""
        tasks = Path(f"/proc/{self.process.pid}/task")
        pids = [pid for task in tasks.iterdir() for pid in (task / "children").read_text().split()]
        return {int(pid): Path(f"/proc/{pid}/cmdline").read_text() for pid in pids}

    def child(self, name: str) -> int | None:
        found = [pid for pid, command in self.children().items() if command.endswith(f"{name}\0")]
        return found[0] if found else None

    def end(self) -> None:
        """Kill the process, as a crash would; its children must then end by themselves."""
        self.process.kill()
        self.process.wait()


def is_ready(views_url: str) -> bool:
    try:
        return httpx.get(f"{views_url}/readyz", trust_env=False).is_success
    except httpx.HTTPError:
        return False
