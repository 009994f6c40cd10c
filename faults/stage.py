"""The stage of a run with faults: a real Kafka, an ingress and workers, a proxy before each broker.

In: a folder, how many workers, one broker or three. Out: programs that can be killed, frozen,
stopped and started.
Never: a program that ends by itself and is not noticed; it is started again, as a supervisor would,
and told of at the end.
"""

import asyncio
import os
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Self

import msgspec

from cli.kafka.broker import EmbeddedKafka
from cli.kafka.cluster import HEAP_MB, SIZE, KafkaCluster
from cli.kafka.distribution import KafkaCache
from cli.kafka.process import free_port
from cli.kafka.properties import Node
from cli.run.local import WEBHOOK_PATH
from cli.run.programs import Command
from faults.disk import can_mount, small_disk
from faults.program import ProgramUnderFault, Stop, UnplannedEnd
from faults.proxy import Proxy
from runtime.kafka.topics import TopicSettings, ensure_topics

SECRETS: Final = ("whsec_faults_old", "whsec_faults_new")
_LOOPBACK: Final = "127.0.0.1"
_OTHER_LOOPBACK: Final = "127.0.0.2"
_READY_WITHIN_S: Final = 90.0
_LOOK_EVERY_S: Final = 0.25
# The least there is: a full disk is felt when the write buffers' room, which is taken beforehand,
# is used up, and at a test's rate that lasts for a while.
_TABLE_MEMORY_MB: Final = 24
_DISK_MB: Final = 1024
# Many more than a worker's tables take; few enough to be used up by empty files in no time.
_DISK_INODES: Final = 8192
_EXTRA_WORKERS: Final = 2


class Pauses(msgspec.Struct, frozen=True):
    """Seconds: how long faults stay, and how long nothing is broken after one, at most."""

    worker_frozen: tuple[float, ...]
    worker_joined: tuple[float, float]
    calm: float


LONG: Final = Pauses(worker_frozen=(2.0, 5.0, 14.0), worker_joined=(4.0, 12.0), calm=2.0)
SHORT: Final = Pauses(worker_frozen=(0.5, 1.5, 11.0), worker_joined=(0.2, 3.0), calm=0.3)
"""With these, rebalances come before the one before is digested."""


class StageError(RuntimeError):
    """The stage does not come up, or not again; the message says what is missing."""


class Stage:
    """Everything that runs; use as ``with``. Who watches asks the broker past the proxy."""

    def __init__(
        self,
        folder: Path,
        cache: KafkaCache,
        workers: int,
        brokers: int = 1,
        pauses: Pauses = LONG,
    ) -> None:
        self.folder = folder
        self.pauses = pauses
        self.proxies: list[Proxy] = []
        self._cache = cache
        kafka = folder / "kafka"
        self._cluster = KafkaCluster(kafka, self._broker) if brokers > 1 else None
        self.brokers = self._cluster.brokers if self._cluster else [self._broker(kafka, None)]
        self._shared = _environment([f"{_LOOPBACK}:{proxy.port}" for proxy in self.proxies])
        direct = ",".join(broker.bootstrap for broker in self.brokers)
        # Of whoever watches and judges.
        self.environment = self._shared | {"LEDGER_KAFKA_BOOTSTRAP": direct}
        self.settings = TopicSettings.from_environment(self.environment)
        self.ingest = self._program("ingest", "ingest")
        self.workers = [self._program(f"worker {n + 1}", "worker") for n in range(workers)]
        self.extras = [self._program(f"extra {n + 1}", "worker") for n in range(_EXTRA_WORKERS)]
        self.unplanned: list[UnplannedEnd] = []
        # What a fault found wrong, or the end of the sending, a line each.
        self.findings: list[str] = []
        # The faults that are at work, for whoever reads of an end.
        self.fault = "the start"
        self._stack = ExitStack()
        self._closing = threading.Event()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self._cluster or self.brokers[0])
            for proxy in self.proxies:
                stack.enter_context(proxy)
            asyncio.run(ensure_topics(self.settings))
            self._mount_disks(stack)
            for program in (*self.programs, *self.extras):
                stack.callback(program.end)
            for program in self.programs:
                program.start()
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
    def programs(self) -> list[ProgramUnderFault]:
        """The programs that should always run."""
        return [self.ingest, *self.workers]

    def start_again(self, broker: EmbeddedKafka) -> None:
        """Start a broker that was away."""
        if self._cluster:
            self._cluster.start_again(broker)
        else:
            broker.start()

    def settle(self, within_s: float) -> None:
        """Wait until everything that should run is ready; ``StageError`` after ``within_s``."""
        deadline = time.monotonic() + within_s
        # What a broker lacks is on two others only: the next fault must not find it so.
        while self._cluster and not self._cluster.in_sync():
            if time.monotonic() > deadline:
                raise StageError(f"the brokers are not in sync after {within_s:.0f} s")
            time.sleep(_LOOK_EVERY_S)
        for program in self.programs:
            while trouble := program.not_ready():
                if self._closing.is_set():
                    raise StageError("the run is over")
                if time.monotonic() > deadline:
                    lines = "\n".join(program.last_lines)
                    raise StageError(
                        f"{program.label} is not ready after {within_s:g} s (readiness probe: "
                        f"{trouble}). Its last lines:\n{lines}"
                    )
                time.sleep(_LOOK_EVERY_S)

    def end_workers(self) -> None:
        """End every worker for good, so that its tables can be opened."""
        for worker in (*self.workers, *self.extras):
            worker.end()

    def give_up(self) -> None:
        """Let whoever waits for programs to be ready wait no longer."""
        self._closing.set()

    def stops_since(self, since_s: float, targets: Collection[str]) -> Iterator[Stop]:
        """Yield how those of a fault's targets ended that were told to by SIGTERM."""
        for program in (*self.programs, *self.extras):
            if program.label in targets:
                yield from (stop for stop in program.stops if stop.at_s >= since_s)

    def _mount_disks(self, stack: ExitStack) -> None:
        if can_mount():
            for worker in self.workers:
                worker.disk = stack.enter_context(
                    small_disk(worker.folder, _DISK_MB, f"nr_inodes={_DISK_INODES}")
                )

    def _await_ready(self) -> None:
        self.settle(_READY_WITHIN_S)

    def _broker(self, folder: Path, node: Node | None) -> EmbeddedKafka:
        """Describe a broker with a listener that is advertised as the port of a proxy."""
        direct, proxied, advertised = free_port(), free_port(), free_port()
        self.proxies.append(Proxy(advertised, proxied))
        return EmbeddedKafka(
            folder,
            cache=self._cache,
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
            heap_mb=HEAP_MB,
            node=node,
        )

    def twin_of(self, worker: ProgramUnderFault) -> ProgramUnderFault:
        """Return a worker that takes another one's name once it has a copy of its folder.

        A worker's name has its address in it, so both have the same one. Nobody starts it again.
        """
        port = int(worker.url.rpartition(":")[2])
        twin = self._program(f"copy of {worker.label}", "worker", port, _OTHER_LOOPBACK)
        self._stack.callback(twin.end)
        return twin

    def _program(
        self, label: str, command: str, port: int = 0, bind: str = _LOOPBACK
    ) -> ProgramUnderFault:
        folder = self.folder / label.replace(" ", "-")
        port = port or free_port()
        variable = "LEDGER_INGEST_PORT" if command == "ingest" else "LEDGER_WEB_PORT"
        environment = self._shared | {
            variable: str(port),
            "LEDGER_WEB_BIND": bind,
            "LEDGER_DATA_DIR": str(folder),
        }
        log = self.folder / f"{folder.name}.log"

        def write(line: str) -> None:
            with log.open("a") as file:
                file.write(f"{line}\n")

        child = Command(command, environment, write)
        return ProgramUnderFault(child, folder, label=label, url=f"http://{bind}:{port}")

    def _watch(self) -> None:
        """Start again what ends, as a supervisor would; remember what no fault had ended."""
        while not self._closing.wait(_LOOK_EVERY_S):
            for program in (*self.programs, *self.extras):
                end = program.start_again(self.fault)
                if end and not end.is_excused:
                    self.unplanned.append(end)
                program.note_if_ready()


def _environment(servers: list[str]) -> dict[str, str]:
    kept = {name: text for name, text in os.environ.items() if not name.startswith("LEDGER_")}
    replicas = SIZE if len(servers) > 1 else 1
    return kept | {
        "LEDGER_KAFKA_BOOTSTRAP": ",".join(servers),
        "LEDGER_REPLICATION_FACTOR": str(replicas),
        "LEDGER_MIN_INSYNC_REPLICAS": str((replicas + 1) // 2),
        "LEDGER_WEBHOOK_SECRETS": ",".join(SECRETS),
        "LEDGER_LOG_FORMAT": "json",
        "LEDGER_TABLE_MEMORY_MB": str(_TABLE_MEMORY_MB),
    }
