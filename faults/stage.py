"""The stage of a run with faults: a real Kafka behind a proxy, an ingress and workers.

In: a folder, and how many workers. Out: programs that can be killed, frozen, stopped and started.
Never: a program that ends by itself and is not noticed; it is started again, as a supervisor would,
and told of at the end.
"""

import asyncio
import os
import signal
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Self

import httpx
import msgspec

from cli.kafka import EmbeddedKafka
from cli.kafka_distribution import KafkaCache
from cli.kafka_process import free_port
from cli.local import WEBHOOK_PATH
from cli.programs import Command, describe_exit
from faults.proxy import Proxy
from runtime.topics import TopicSettings, ensure_topics

SECRETS: Final = ("whsec_faults_old", "whsec_faults_new")
_LOOPBACK: Final = "127.0.0.1"
_READY_WITHIN_S: Final = 90.0
_STOPPED_WITHIN_S: Final = 10.0
_LOOK_EVERY_S: Final = 0.25
_NO_KAFKA: Final = "Kafka does not answer"


class StageError(RuntimeError):
    """The stage does not come up, or not again; the message says what is missing."""


class UnplannedEnd(msgspec.Struct, frozen=True):
    """A program ended, and no fault had ended it; ``last_lines`` are what it printed."""

    program: str
    how: str
    last_lines: tuple[str, ...]


class Program:
    """An ingress or a worker, with what a fault may do to it."""

    def __init__(self, label: str, command: Command, url: str, folder: Path) -> None:
        self.label = label
        self.url = url
        self.folder = folder
        # Whether a fault has ended it, or may make it end.
        self.may_end = True
        self._command = command

    def start(self) -> None:
        """Start it; it is ready some seconds later."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._command.start()
        self.may_end = False

    def kill(self) -> None:
        """End it by SIGKILL."""
        self.may_end = True
        self._command.kill()
        self._command.join(_STOPPED_WITHIN_S)

    def stop(self) -> float:
        """End it by SIGTERM; return how long that took, in seconds."""
        self.may_end = True
        began_s = time.monotonic()
        self._command.terminate()
        # Longer than it may take, so that the truth is seen.
        self._command.join(2 * _STOPPED_WITHIN_S)
        return time.monotonic() - began_s

    def freeze(self) -> None:
        """Stop it where it stands (SIGSTOP): its connections stay open."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on (SIGCONT)."""
        self._signal(signal.SIGCONT)

    def ended(self) -> str | None:
        """Say how it ended; ``None`` while it runs."""
        code = self._command.exit_code()
        return None if code is None else describe_exit(code)

    @property
    def last_lines(self) -> tuple[str, ...]:
        """What it printed last."""
        return tuple(self._command.last_lines)

    def is_ready(self) -> bool:
        """Ask its readiness probe."""
        try:
            return httpx.get(f"{self.url}/readyz", timeout=2.0, trust_env=False).is_success
        except httpx.HTTPError:
            return False

    def _signal(self, number: signal.Signals) -> None:
        if self._command.pid is not None and self.ended() is None:
            os.kill(self._command.pid, number)


class Stage:
    """Everything that runs; use as ``with``. Who watches asks the broker past the proxy."""

    def __init__(self, folder: Path, cache: KafkaCache, workers: int) -> None:
        self.folder = folder
        direct, proxied, advertised = free_port(), free_port(), free_port()
        self.broker = EmbeddedKafka(
            folder / "kafka",
            cache=cache,
            port=direct,
            listeners={"PROXIED": proxied},
            properties={
                "listener.security.protocol.map": (
                    "PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT"
                ),
                "advertised.listeners": (
                    f"PLAINTEXT://{_LOOPBACK}:{direct},PROXIED://{_LOOPBACK}:{advertised}"
                ),
            },
        )
        self.proxy = Proxy(advertised, proxied)
        self._shared = _environment(f"{_LOOPBACK}:{advertised}")
        self.settings = TopicSettings.from_environment(
            self._shared | {"LEDGER_KAFKA_BOOTSTRAP": self.broker.bootstrap}
        )
        self.ingest = self._program("ingest", "ingest")
        self.workers = [self._program(f"worker {n + 1}", "worker") for n in range(workers)]
        self.extra = self._program("one more worker", "worker")
        self.extra.may_end = True
        self.unplanned: list[UnplannedEnd] = []
        self._stack = ExitStack()
        self._closing = threading.Event()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self.broker)
            stack.enter_context(self.proxy)
            asyncio.run(ensure_topics(self.settings))
            for program in (self.ingest, *self.workers):
                stack.callback(_end, program)
                program.start()
            stack.callback(_end, self.extra)
            self._await_ready()
            watcher = threading.Thread(target=self._watch, name="watcher", daemon=True)
            watcher.start()
            stack.callback(watcher.join)
            stack.callback(self._closing.set)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    @property
    def webhook_url(self) -> str:
        """Where webhooks are posted."""
        return self.ingest.url + WEBHOOK_PATH

    @property
    def programs(self) -> list[Program]:
        """The programs that should always run."""
        return [self.ingest, *self.workers]

    def settle(self, within_s: float) -> None:
        """Wait until everything that should run is ready; ``StageError`` after ``within_s``."""
        deadline = time.monotonic() + within_s
        for program in self.programs:
            while not program.is_ready():
                if time.monotonic() > deadline:
                    lines = "\n".join(program.last_lines)
                    raise StageError(f"{program.label} is not ready:\n{lines}")
                time.sleep(_LOOK_EVERY_S)

    def _await_ready(self) -> None:
        self.settle(_READY_WITHIN_S)

    def _program(self, label: str, command: str) -> Program:
        folder = self.folder / label.replace(" ", "-")
        port = free_port()
        variable = "LEDGER_INGEST_PORT" if command == "ingest" else "LEDGER_WEB_PORT"
        environment = self._shared | {variable: str(port), "LEDGER_DATA_DIR": str(folder)}
        log = self.folder / f"{folder.name}.log"

        def write(line: str) -> None:
            with log.open("a") as file:
                file.write(f"{line}\n")

        child = Command(command, environment, write)
        return Program(label, child, f"http://{_LOOPBACK}:{port}", folder)

    def _watch(self) -> None:
        """Start again what ends, as a supervisor would; remember what no fault had ended."""
        while not self._closing.wait(_LOOK_EVERY_S):
            for program in self.programs:
                how = program.ended()
                if how is not None and not program.may_end:
                    # One that finds no Kafka when it starts says so and ends, as it should.
                    if not any(_NO_KAFKA in line for line in program.last_lines):
                        self.unplanned.append(UnplannedEnd(program.label, how, program.last_lines))
                    program.start()


def _environment(bootstrap: str) -> dict[str, str]:
    kept = {name: text for name, text in os.environ.items() if not name.startswith("LEDGER_")}
    return kept | {
        "LEDGER_KAFKA_BOOTSTRAP": bootstrap,
        "LEDGER_WEBHOOK_SECRETS": ",".join(SECRETS),
        "LEDGER_LOG_FORMAT": "json",
    }


def _end(program: Program) -> None:
    program.go_on()
    if program.ended() is None:
        program.stop()
