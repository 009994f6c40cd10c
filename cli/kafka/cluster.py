"""Three brokers of our own that replicate each other: any one may be lost, and its disk with it.

Comes in: a folder that is kept between runs, and how one broker is made.
Goes out: brokers that serve as one cluster, each of which can be killed, emptied, started again.
Never: a broker with an empty disk that votes as the one it was. It comes as a new member of the
quorum, and gets metadata and records from the others (`docs/decisions/0009`).

    folder/cluster.json     the cluster's id and its controllers' ports, for life
    folder/broker-1/ …      the brokers' folders, as in `cli.kafka.broker`

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

# As many as it takes to lose one and still have each record twice.
SIZE: Final = 3
# Three such heaps fit where one broker has 512 MB and programs run beside it.
HEAP_MB: Final = 384

_POLL_S: Final = 0.1

_PROPERTIES: Final = {
    # A replica that was not in sync never leads: it would lose what was acknowledged.
    "unclean.leader.election.enable": "false",
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    "share.coordinator.state.topic.replication.factor": "3",
    "share.coordinator.state.topic.min.isr": "2",
    # Who comes with another disk than its vote is for gives that vote up and asks for a new one.
    "controller.quorum.auto.join.enable": "true",
}

MakeBroker = Callable[[Path, Node], EmbeddedKafka]
"""Takes a broker's folder and its place in the cluster."""


def plain_broker(cache: KafkaCache, first_port: int = 0) -> MakeBroker:
    """Return how to make brokers on a port and those behind it; 0 stands for free ones."""

    def make(folder: Path, node: Node) -> EmbeddedKafka:
        port = first_port + node.number - 1 if first_port else 0
        return EmbeddedKafka(folder, cache=cache, port=port, heap_mb=HEAP_MB, node=node)

    return make


class _Founding(msgspec.Struct, frozen=True):
    """What `cluster.json` holds; `founded` once there is a disk that holds the quorum's first vote.

    From then on an empty disk is one that was lost.
    """

    cluster_id: str
    controller_ports: tuple[int, ...]
    founded: bool = False


class KafkaCluster:
    """The brokers, started together and stopped together; use as `with`."""

    def __init__(self, folder: Path, make: MakeBroker) -> None:
        """Describe a cluster; nothing runs yet, but `bootstrap` is already settled."""
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
        """Where clients connect: every broker, so that any of them may be away."""
        return ",".join(broker.bootstrap for broker in self.brokers)

    def start(self, *, timeout_s: float = 90.0) -> None:
        """Start all brokers; return once each has a vote and every record.

        Raises what `EmbeddedKafka.start` does.
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
        """Start a broker that was away, with its disk or with an empty one.

        With an empty one it waits for the others first: while they still take it for the active
        controller, as which they knew its lost disk, Kafka 4.3.1 ends with an error.
        """
        if not broker.directory_id:
            others = [other for other in self.brokers if other is not broker]
            _wait(lambda: any(other.voters() for other in others), "have no controller", others)
        broker.start()

    def stop(self) -> None:
        """End all brokers in order."""
        _each(self.brokers, EmbeddedKafka.stop)

    def in_sync(self) -> bool:
        """Tell whether any one broker may be lost: each serves, has a vote, and has every record.

        Each is asked: what one that was just away knows of the others may be old.
        """
        return all(broker.sees_in_sync(SIZE) for broker in self.brokers) and self._all_vote()

    def await_in_sync(self, *, timeout_s: float = 90.0) -> None:
        """Return once `in_sync`; KafkaNotStartedError after `timeout_s`."""
        _wait(self.in_sync, "are not in sync", self.brokers, timeout_s)

    def _all_vote(self) -> bool:
        """Tell whether the quorum consists of the disks that are there now."""
        votes = self.brokers[0].voters()
        return votes == {n: broker.directory_id for n, broker in enumerate(self.brokers, start=1)}

    def _found(self) -> None:
        """Give the first node a disk with a vote; all others, and all later ones, join it."""
        private_folder(self._file.parent)
        # Written before as well: with the same id, doing it again after an interruption is nothing.
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
    """Do the same with every broker, side by side: none serves before the quorum is there."""
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
