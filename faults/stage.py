"""Starts the programs of a run with faults: Kafka, an ingress, workers, and a proxy per broker.

A fault can kill, freeze, stop and start each program. If a program ends by itself, the stage
restarts it, as a supervisor would do, and the run reports this end.
"""

import asyncio
import os
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Final, Self

import msgspec

from cli.kafka.broker import EmbeddedKafka
from cli.kafka.cluster import HEAP_MB, SIZE, KafkaCluster
from cli.kafka.distribution import KafkaCache
from cli.kafka.process import free_port
from cli.kafka.properties import Node
from cli.run.programs import Command
from cli.settings import WEBHOOK_PATH
from faults.clock import LIBRARY, ProgramClock
from faults.credentials import USER, Credentials, set_password
from faults.disk import can_mount, small_disk
from faults.program import ProgramUnderFault, Refusal, Stop, UnplannedEnd
from faults.proxy import Proxy
from runtime.kafka.topics import TopicSettings, ensure_topics

SECRETS: Final = ("whsec_faults_old", "whsec_faults_new")
_LOOPBACK: Final = "127.0.0.1"
_OTHER_LOOPBACK: Final = "127.0.0.2"
_READY_WITHIN_S: Final = 90.0
_LOOK_EVERY_S: Final = 0.25
# A worker notices a full disk only after it has used up the space that RocksDB reserves for write
# buffers. This takes a while at the rate of a run, so the space is as small as the setting allows.
_TABLE_MEMORY_MB: Final = 24
_DISK_MB: Final = 1024
# A worker's tables need far fewer inodes than this. A fault that creates empty files uses up this
# number quickly.
_DISK_INODES: Final = 8192
_EXTRA_WORKERS: Final = 2
# The default is 90 days.
_OTHER_SETTINGS: Final = MappingProxyType({"LEDGER_FORGET_AFTER_DAYS": "91"})
_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


class Pauses(msgspec.Struct, frozen=True):
    """The seconds for which faults last, and the longest calm after a fault."""

    worker_frozen: tuple[float, ...]
    worker_joined: tuple[float, float]
    calm: float


LONG: Final = Pauses(worker_frozen=(2.0, 5.0, 14.0), worker_joined=(4.0, 12.0), calm=2.0)
SHORT: Final = Pauses(worker_frozen=(0.5, 1.5, 11.0), worker_joined=(0.2, 3.0), calm=0.3)
"""With these pauses, a rebalance starts before the previous rebalance has settled."""


class StageError(RuntimeError):
    """A part of the stage does not start or recover; the message names that part."""


class FaultStage:
    """A context manager that runs all programs.

    ``settings`` has the brokers' direct addresses, so a client with these settings does not pass
    through the proxies. On a ``secured`` stage, the listeners behind the proxies require
    ``credentials``.
    """

    def __init__(  # noqa: PLR0913 - one call describes a whole stage
        self,
        folder: Path,
        cache: KafkaCache,
        workers: int,
        brokers: int = 1,
        *,
        pauses: Pauses = LONG,
        secured: bool = False,
    ) -> None:
        self.folder = folder
        self.pauses = pauses
        self.credentials = Credentials(folder / "credentials") if secured else None
        self.proxies: list[Proxy] = []
        self._cache = cache
        kafka = folder / "kafka"
        self._cluster = KafkaCluster(kafka, self._broker) if brokers > 1 else None
        self.brokers = self._cluster.brokers if self._cluster else [self._broker(kafka, None)]
        self._shared = _environment([f"{_LOOPBACK}:{proxy.port}" for proxy in self.proxies])
        direct = ",".join(broker.bootstrap for broker in self.brokers)
        # This environment is for the programs that watch and judge.
        self.environment = self._shared | {"LEDGER_KAFKA_BOOTSTRAP": direct}
        if self.credentials:
            self._shared |= self.credentials.environment
        self.settings = TopicSettings.from_environment(self.environment)
        self.ingest = self._clocked("ingest", "ingest")
        self.workers = [self._program(f"worker {n + 1}", "worker") for n in range(workers)]
        self.extras = [self._clocked(f"extra {n + 1}", "worker") for n in range(_EXTRA_WORKERS)]
        # This worker's fold settings differ from the fold settings of the other workers.
        self.stranger = self._program("stranger", "worker", more=_OTHER_SETTINGS)
        self.unplanned: list[UnplannedEnd] = []
        # The findings of the faults and of the sender, one per line.
        self.findings: list[str] = []
        self.refusals: list[Refusal] = []
        # The names of the current faults, for the report of an unplanned end.
        self.fault = "the start"
        self._stack = ExitStack()
        self._closing = threading.Event()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self._cluster or self.brokers[0])
            if self.credentials:
                self.set_password(self.credentials.password_file.read_text())
            for proxy in self.proxies:
                stack.enter_context(proxy)
            asyncio.run(ensure_topics(self.settings))
            self._mount_disks(stack)
            for program in (*self.programs, *self.extras, self.stranger):
                stack.callback(program.end)
            for program in self.programs:
                program.start()
            self.settle(_READY_WITHIN_S)
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
        """The URL to which webhooks are posted."""
        return self.ingest.url + WEBHOOK_PATH

    @property
    def programs(self) -> list[ProgramUnderFault]:
        """The programs that should always run."""
        return [self.ingest, *self.workers]

    def set_password(self, password: str) -> None:
        """Set the password that the brokers expect from the programs."""
        set_password(self._cache, self.environment["LEDGER_KAFKA_BOOTSTRAP"], USER, password)

    def start_again(self, broker: EmbeddedKafka) -> None:
        """Start a broker that a fault has ended."""
        if self._cluster:
            self._cluster.start_again(broker)
        else:
            broker.start()

    def settle(self, within_s: float) -> None:
        """Wait until all programs are ready; raise ``StageError`` after ``within_s``."""
        deadline = time.monotonic() + within_s
        # A record that one broker lacks has only two copies, and the next fault may hit a copy.
        while self._cluster and not self._cluster.in_sync():
            if time.monotonic() > deadline:
                raise StageError(f"the brokers are not in sync after {within_s:.0f} s")
            time.sleep(_LOOK_EVERY_S)
        for program in self.programs:
            self.await_ready(program, deadline - time.monotonic())

    def await_ready(self, program: ProgramUnderFault, within_s: float) -> None:
        """Wait until a program is ready; raise ``StageError`` after ``within_s``."""
        deadline = time.monotonic() + within_s
        while trouble := program.not_ready():
            if self._closing.is_set():
                raise StageError("the run is over")
            if time.monotonic() > deadline:
                lines = "\n".join(program.last_lines)
                raise StageError(
                    f"{program.label} is not ready after {within_s:.0f} s (readiness probe: "
                    f"{trouble}). Its last lines:\n{lines}"
                )
            time.sleep(_LOOK_EVERY_S)

    def end_workers(self) -> None:
        """End every worker for good, so that the tables can be opened."""
        for worker in (*self.workers, *self.extras):
            worker.end()

    def give_up(self) -> None:
        """Stop waiting for programs to become ready."""
        self._closing.set()

    def stops_since(self, since_s: float, targets: Collection[str]) -> Iterator[Stop]:
        """Yield how the targets of a fault ended after SIGTERM."""
        for program in (*self.programs, *self.extras):
            if program.label in targets:
                yield from (stop for stop in program.stops if stop.at_s >= since_s)

    def _mount_disks(self, stack: ExitStack) -> None:
        if can_mount():
            for worker in self.workers:
                worker.disk = stack.enter_context(
                    small_disk(worker.folder, _DISK_MB, f"nr_inodes={_DISK_INODES}")
                )

    def _broker(self, folder: Path, node: Node | None) -> EmbeddedKafka:
        """Return a broker with a second listener, which is advertised under a proxy's port."""
        direct, proxied, advertised = free_port(), free_port(), free_port()
        self.proxies.append(Proxy(advertised, proxied))
        protocol, demands = "PLAINTEXT", {}
        if self.credentials:
            protocol, demands = "SASL_SSL", self.credentials.listener_properties("PROXIED")
        return EmbeddedKafka(
            folder,
            cache=self._cache,
            port=direct,
            listeners={"PROXIED": proxied},
            properties={
                "listener.security.protocol.map": (
                    f"PLAINTEXT:PLAINTEXT,PROXIED:{protocol},CONTROLLER:PLAINTEXT"
                ),
                "advertised.listeners": (
                    f"PLAINTEXT://{_LOOPBACK}:{direct},PROXIED://{_LOOPBACK}:{advertised}"
                ),
                **demands,
            },
            heap_mb=HEAP_MB,
            node=node,
        )

    def twin_of(self, worker: ProgramUnderFault) -> ProgramUnderFault:
        """Return a worker that will use a copy of a given worker's folder.

        Both workers have the same name. The name contains the port, so both workers use the same
        port, on different addresses. The stage never restarts the returned worker.
        """
        port = int(worker.url.rpartition(":")[2])
        twin = self._program(f"copy of {worker.label}", "worker", port, _OTHER_LOOPBACK)
        self._stack.callback(twin.end)
        return twin

    def _clocked(self, label: str, command: str) -> ProgramUnderFault:
        """Return a program; if libfaketime is installed, the program has its own clock."""
        clock = ProgramClock(self.folder / f"{label.replace(' ', '-')}.clock") if LIBRARY else None
        program = self._program(label, command, more=clock.environment if clock else {})
        program.clock = clock
        return program

    def _program(
        self,
        label: str,
        command: str,
        port: int = 0,
        bind: str = _LOOPBACK,
        more: Mapping[str, str] = _NOTHING,
    ) -> ProgramUnderFault:
        folder = self.folder / label.replace(" ", "-")
        port = port or free_port()
        variable = "LEDGER_INGEST_PORT" if command == "ingest" else "LEDGER_WEB_PORT"
        environment = {
            **self._shared,
            variable: str(port),
            "LEDGER_WEB_BIND": bind,
            "LEDGER_DATA_DIR": str(folder),
            **more,
        }
        log = self.folder / f"{folder.name}.log"

        def write(line: str) -> None:
            with log.open("a") as file:
                file.write(f"{line}\n")

        child = Command(command, environment, write)
        return ProgramUnderFault(child, folder, label=label, url=f"http://{bind}:{port}")

    def _watch(self) -> None:
        """Restart programs that end, as a supervisor would; record ends that no fault caused."""
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
