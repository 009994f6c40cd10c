"""Runs three brokers that replicate each other; records survive the loss of one broker's disk.

Each broker can be killed, its disk can be emptied, and the broker can be started again. A broker
with an empty disk never votes as the old member of the quorum. Instead, it joins the quorum as a
new member, and fetches metadata and records from the other brokers (`docs/decisions/0009`).

    folder/cluster.json     the cluster's id and the controllers' ports; both never change
    folder/broker-1/ …      the brokers' folders; see `cli.kafka.broker`

Every method blocks, and may be called from any thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Self

import msgspec

from cli.kafka.broker import EmbeddedKafka
from cli.kafka.distribution import KafkaCache, KafkaNotStartedError
from cli.kafka.process import HOST, free_port
from cli.kafka.properties import Node, new_cluster_id
from runtime.folders import private_folder

# With three brokers, each record still has two replicas after the loss of one broker.
SIZE: Final = 3
# Each broker has a heap of this size. A machine that can run the programs and one broker with a
# heap of 512 MB also has room for three heaps of this size.
HEAP_MB: Final = 384

_POLL_S: Final = 0.1

_PROPERTIES: Final = {
    # A replica that is out of sync must never become the leader of its partition, because
    # acknowledged records would then be lost.
    "unclean.leader.election.enable": "false",
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    "share.coordinator.state.topic.replication.factor": "3",
    "share.coordinator.state.topic.min.isr": "2",
    # A controller whose disk was replaced gives up its old vote and asks for a new vote.
    "controller.quorum.auto.join.enable": "true",
}

MakeBroker = Callable[[Path, Node], EmbeddedKafka]
"""Creates a broker from its folder and its place in the cluster."""


def plain_broker(cache: KafkaCache, first_port: int = 0) -> MakeBroker:
    """Return a function that creates brokers on `first_port` and the next ports (0: free ports)."""

    def make(folder: Path, node: Node) -> EmbeddedKafka:
        port = first_port + node.number - 1 if first_port else 0
        return EmbeddedKafka(folder, cache=cache, port=port, heap_mb=HEAP_MB, node=node)

    return make


class _Founding(msgspec.Struct, frozen=True):
    """The content of `cluster.json`.

    `founded` is true as soon as a disk with the quorum's first vote exists. From then on, an empty
    disk means that the disk was lost.
    """

    cluster_id: str
    controller_ports: tuple[int, ...]
    founded: bool = False


class KafkaCluster:
    """The brokers, as a context manager that starts and stops all of them."""

    def __init__(self, folder: Path, make: MakeBroker) -> None:
        """Describe a cluster and choose its ports; do not start the cluster."""
        self._file = folder.absolute() / "cluster.json"
        self._founding = self._read()
        self.brokers = [
            make(folder.absolute() / f"broker-{node.number}", node) for node in self._nodes()
        ]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    @property
    def bootstrap(self) -> str:
        """The addresses of all brokers, so that clients connect even while one broker is down."""
        return ",".join(broker.bootstrap for broker in self.brokers)

    def start(self, *, timeout_s: float = 90.0) -> None:
        """Start all brokers, and wait until each broker has a vote and all records.

        Raises the errors of `EmbeddedKafka.start`.
        """
        try:
            if not self._founding.founded:
                self._found()
            empty = [broker for broker in self.brokers if not broker.directory_id]
            _each([broker for broker in self.brokers if broker not in empty], EmbeddedKafka.start)
            _each(empty, self.start_again)
            self.await_in_sync(timeout_s=timeout_s)
        except BaseException:
            _each(self.brokers, EmbeddedKafka.kill)
            raise

    def start_again(self, broker: EmbeddedKafka) -> None:
        """Start a broker that was down, with its former disk or an empty disk.

        If the disk is empty, this method first waits until the other brokers have elected a
        controller. While the lost disk still counts as the active controller, a broker of Kafka
        4.3.1 that starts with an empty disk ends with an error.
        """
        if not broker.directory_id:
            others = [other for other in self.brokers if other is not broker]
            _wait(lambda: any(other.voters() for other in others), "have no controller", others)
        broker.start()

    def stop(self) -> None:
        """Stop all brokers."""
        _each(self.brokers, EmbeddedKafka.stop)

    def in_sync(self) -> bool:
        """Return whether the loss of one broker is harmless.

        The loss is harmless if all brokers serve, vote and have all records.

        Every broker is asked, because a broker that was down a moment ago may have outdated
        metadata.
        """
        return all(broker.sees_in_sync(SIZE) for broker in self.brokers) and self._all_vote()

    def await_in_sync(self, *, timeout_s: float = 90.0) -> None:
        """Wait until `in_sync` is true; raise KafkaNotStartedError after `timeout_s`."""
        _wait(self.in_sync, "are not in sync", self.brokers, timeout_s)

    def _all_vote(self) -> bool:
        """Return whether the voters of the quorum are the brokers' current disks."""
        votes = self.brokers[0].voters()
        return votes == {n: broker.directory_id for n, broker in enumerate(self.brokers, start=1)}

    def _found(self) -> None:
        """Format the first node's disk with a vote; the other nodes join this quorum later."""
        private_folder(self._file.parent)
        # The cluster's id is written before the disk is formatted. So if the formatting is
        # interrupted, a retry formats the disk with the same id.
        self._write(self._founding)
        self.brokers[0].format("--cluster-id", self._founding.cluster_id, "--standalone")
        self._founding = msgspec.structs.replace(self._founding, founded=True)
        self._write(self._founding)

    def _read(self) -> _Founding:
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=_Founding)
        except FileNotFoundError:
            return _Founding(new_cluster_id(), tuple(free_port() for _ in range(SIZE)))

    def _write(self, founding: _Founding) -> None:
        written = self._file.with_suffix(".new")
        written.write_bytes(msgspec.json.format(msgspec.json.encode(founding)))
        written.replace(self._file)

    def _nodes(self) -> list[Node]:
        ports = self._founding.controller_ports
        servers = ",".join(f"{HOST}:{port}" for port in ports)
        return [
            Node(
                number=number,
                controller_port=port,
                properties=_PROPERTIES | {"controller.quorum.bootstrap.servers": servers},
                storage=("--cluster-id", self._founding.cluster_id, "--no-initial-controllers"),
            )
            for number, port in enumerate(ports, start=1)
        ]


def _each(brokers: list[EmbeddedKafka], act: Callable[[EmbeddedKafka], None]) -> None:
    """Call `act` for all brokers in parallel: no broker serves clients before there is a quorum."""
    with ThreadPoolExecutor(SIZE) as pool:
        for done in [pool.submit(act, broker) for broker in brokers]:
            done.result()


def _wait(
    condition: Callable[[], bool], what: str, brokers: list[EmbeddedKafka], timeout_s: float = 60.0
) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            logs = ", ".join(str(broker.log_file) for broker in brokers)
            raise KafkaNotStartedError(
                f"The brokers {what} after {timeout_s:g} s. Their logs: {logs}"
            )
        time.sleep(_POLL_S)
