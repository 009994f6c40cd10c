"""Runs one Apache Kafka broker on loopback, for development, the demo and the tests.

The broker listens only on 127.0.0.1, and no other process uses the broker's folder. On Linux, the
broker ends when the process that started it ends. On other systems, call `stop`.
`cli.kafka.cluster` joins several brokers to a cluster.

    folder/server.properties   written at each start, because ports may change
    folder/broker.log          the output of the JVMs; each start appends to it
    folder/broker.lock         locked by the broker while it runs; contains the broker's pid
    folder/data/               the records; its `meta.properties` contains the cluster's id

Every method blocks and may be called from any thread, so asynchronous code uses
`asyncio.to_thread`. `cli.kafka.distribution` defines the errors.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Self

from cli.child import Child
from cli.kafka.distribution import KafkaCache, KafkaDistribution, KafkaNotStartedError
from cli.kafka.process import HOST, free_port, locked_folder, require_free, spawn
from cli.kafka.properties import Node, server_properties
from cli.kafka.question import ask_metadata, ask_voters
from runtime.folders import private_folder

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# An embedded broker seldom lives for long. With the JVM's second compiler, a start and 3,000 sends
# take 8 s of processor time, and the compiler takes 4 s of these.
_COMPILE_QUICKLY = "-XX:TieredStopAtLevel=1"
_LOGGING = (
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
)


class EmbeddedKafka:
    """A broker and its folder, as a context manager that starts and stops the broker."""

    def __init__(  # noqa: PLR0913 - one call describes a whole broker
        self,
        folder: Path,
        *,
        cache: KafkaCache,
        port: int = 0,
        listeners: Mapping[str, int] | None = None,
        properties: Mapping[str, str] | None = None,
        heap_mb: int = 512,
        jvm: tuple[str, ...] = (),
        node: Node | None = None,
    ) -> None:
        """Describe a broker and choose its ports; do not start the broker.

        `port` 0 means a free port. `listeners` adds listeners to the listener PLAINTEXT: it maps
        the name of a security protocol (SASL_SSL, ...) to a port. `properties` override the
        properties from `cli.kafka.properties`. `node` is the broker's place in a cluster; `None`
        means that the broker is the only one of its cluster.
        """
        self.folder = folder.absolute()
        self._cache = cache
        self._ports = {
            name: number or free_port()
            for name, number in {"PLAINTEXT": port, **(listeners or {})}.items()
        }
        self._properties = dict(properties or {})
        self._jvm = (f"-Xmx{heap_mb}m", _COMPILE_QUICKLY, *_LOGGING, *jvm)
        self._node = node
        self._number = node.number if node else 1
        self._process: Child | None = None

    def __repr__(self) -> str:
        return f"EmbeddedKafka({str(self.folder)!r}, bootstrap={self.bootstrap!r}, pid={self.pid})"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    @property
    def bootstrap(self) -> str:
        """The address for clients without encryption: "127.0.0.1:port"."""
        return self.address("PLAINTEXT")

    @property
    def log_file(self) -> Path:
        """The broker's output."""
        return self.folder / "broker.log"

    @property
    def pid(self) -> int | None:
        """The process id of a running or paused broker; None if there is no process."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def address(self, listener: str) -> str:
        """Return the address of a listener: "127.0.0.1:port"."""
        return f"{HOST}:{self._ports[listener]}"

    def poll(self) -> int | None:
        """Return an ended broker's exit code (negative: the signal that ended it), or None."""
        return self._process.poll() if self._process else None

    def serves(self) -> bool:
        """Return whether the broker serves clients now; a paused broker does not."""
        if self.pid is None:
            return False
        # An open port is not enough: Kafka opens the port before the controller admits the broker.
        metadata = ask_metadata(self._ports["PLAINTEXT"], [])
        return metadata is not None and self._number in metadata.brokers

    def sees_in_sync(self, replicas: int) -> bool:
        """Return whether the broker sees a whole cluster of `replicas` brokers, all in sync."""
        metadata = ask_metadata(self._ports["PLAINTEXT"], None) if self.pid else None
        return metadata is not None and (
            len(metadata.brokers) == replicas
            and all(each.in_sync == each.replicas for each in metadata.partitions)
        )

    def voters(self) -> Mapping[int, str] | None:
        """Return the disk id of each voter in the quorum, or None if the broker does not answer."""
        return ask_voters(self._ports["PLAINTEXT"]) if self.pid else None

    @property
    def directory_id(self) -> str | None:
        """The disk's id, or None while the disk is empty; each formatting creates a new id."""
        try:
            lines = (self._data / "meta.properties").read_text().splitlines()
        except FileNotFoundError:
            return None
        return dict(line.split("=", 1) for line in lines if "=" in line).get("directory.id")

    def start(self, *, timeout_s: float = 120.0) -> None:
        """Fetch Kafka if the cache is empty, start the broker, and wait until it serves clients.

        `timeout_s` does not include the download. Raises KafkaNotFetchedError,
        KafkaFolderInUseError, KafkaPortTakenError or KafkaNotStartedError. The text of
        KafkaNotStartedError contains the end of `broker.log`.
        """
        self._launch(fetch(self._cache), timeout_s)

    def stop(self, *, timeout_s: float = 20.0) -> None:
        """Stop the broker if it runs; kill it after `timeout_s`."""
        if self._process is None:
            return
        self._process.terminate()
        self.resume()  # a paused process does not handle the signal
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Kill the broker, as a crash would, and wait for its end."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def pause(self) -> None:
        """Suspend the broker: its connections stay open, and it answers nothing."""
        self._signal(signal.SIGSTOP)
        if sys.platform != "darwin" and (pid := self.pid):
            # The system call that sends the signal returns before the broker's last thread has
            # stopped. This call waits until the whole process has stopped.
            os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Resume a paused broker."""
        self._signal(signal.SIGCONT)

    def restart(self, *, timeout_s: float = 60.0) -> None:
        """Stop the broker, and start it on the same ports and data."""
        self.stop()
        self.start(timeout_s=timeout_s)

    def erase(self) -> None:
        """Empty the disk of a stopped broker, as replacing the disk would."""
        with locked_folder(self.folder):
            shutil.rmtree(self._data, ignore_errors=True)

    def format(self, *storage: str, timeout_s: float = 60.0) -> None:
        """Format an empty disk before the first start; `storage` has arguments of Kafka's tool.

        Raises KafkaNotFetchedError, KafkaFolderInUseError or KafkaNotStartedError.
        """
        distribution, node = fetch(self._cache), self._node or Node.alone()
        private_folder(self.folder)
        with locked_folder(self.folder):
            self._format(distribution, self._write_properties(node), storage, timeout_s)

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)  # has no effect on a process that has ended

    def _launch(self, distribution: KafkaDistribution, timeout_s: float) -> None:
        node = self._node or Node.alone()
        private_folder(self.folder)
        with locked_folder(self.folder) as lock:
            for port in (*self._ports.values(), node.controller_port):
                require_free(port)
            settings = self._write_properties(node)
            if not (self._data / "meta.properties").exists():
                self._format(distribution, settings, node.storage, timeout_s)
            command = distribution.command("kafka.Kafka", str(settings), jvm=self._jvm)
            self._process = spawn(command, log_file=self.log_file, inherit=lock)
            os.pwrite(lock, str(self._process.pid).encode(), 0)
        try:
            self._await_answer(self._process, timeout_s)
        except BaseException:
            self.kill()
            raise

    def _write_properties(self, node: Node) -> Path:
        """Write server.properties for this user only: it may contain a listener's password."""
        path = self.folder / "server.properties"
        path.touch(mode=0o600)
        path.write_text(server_properties(node, self._ports, self._properties))
        return path

    def _format(
        self,
        distribution: KafkaDistribution,
        settings: Path,
        storage: tuple[str, ...],
        timeout_s: float,
    ) -> None:
        arguments = ("format", "--ignore-formatted", "-c", str(settings), *storage)
        command = distribution.command("kafka.tools.StorageTool", *arguments, jvm=self._jvm)
        process = spawn(command, log_file=self.log_file)
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise self._not_started(
                f"formatting its storage took more than {timeout_s:g} s"
            ) from None
        finally:
            process.kill()  # has no effect on a process that has ended
            process.wait()
        if code != 0:
            raise self._not_started(f"formatting its storage ended with exit code {code}")

    def _await_answer(self, process: Child, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not self.serves():
            if (code := process.poll()) is not None:
                raise self._not_started(f"it ended with exit code {code}")
            if time.monotonic() > deadline:
                raise self._not_started(f"no answer at {self.bootstrap} within {timeout_s:g} s")
            time.sleep(0.03)

    def _not_started(self, reason: str) -> KafkaNotStartedError:
        lines = self.log_file.read_text(errors="replace").splitlines()[-15:]
        return KafkaNotStartedError(
            f"Kafka did not start: {reason}.\nThe end of {self.log_file}:\n"
            + "\n".join(f"  {line}" for line in lines)
        )


def fetch(cache: KafkaCache) -> KafkaDistribution:
    """Return Kafka from `cache`; if needed, fill the cache first. Raises KafkaNotFetchedError."""
    return cache.distribution(_record_start)


def _record_start(distribution: KafkaDistribution, archive: Path) -> None:
    """Start and stop a broker; the broker's JVM writes `archive` when it ends."""
    broker = EmbeddedKafka(
        archive.with_name("broker"),
        cache=KafkaCache(folder=archive.parent),
        jvm=(f"-XX:AOTCacheOutput={archive}",),
    )
    try:
        broker._launch(distribution, timeout_s=60)  # noqa: SLF001 - `start` would recurse
        broker.stop(timeout_s=120)
    finally:
        broker.kill()
