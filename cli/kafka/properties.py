"""What an embedded broker is told: ``server.properties``, and its place among others.

In: a node, its listeners' ports, further properties. Out: the file's text. Never: a listener beyond
loopback, or a value that the file's format would read as another one.
"""

from __future__ import annotations

import base64
import struct
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from cli.kafka.process import HOST, free_port

if TYPE_CHECKING:
    from collections.abc import Mapping

_PROPERTIES = {
    "process.roles": "broker,controller",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    # A topic that nobody created is a mistake to be seen, not to be made real.
    "auto.create.topics.enable": "false",
    "group.initial.rebalance.delay.ms": "0",
    # One broker holds every replica; four partitions instead of fifty keep starts short.
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    # The commits of workers that were away for a week are still there: for ever, nearly.
    "offsets.retention.minutes": str(2**31 - 1),
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "4",
    # After a kill, the broker may register again only once its old session has run out: with
    # Kafka's 9 s such a start takes 13 s. Four heartbeats fit into one session.
    "broker.session.timeout.ms": "2000",
    "broker.heartbeat.interval.ms": "500",
    # Kafka would take a quarter of our heap (128 MB) at once; this still compacts 600,000 keys
    # in one pass.
    "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A broker's place: its number, its controller's port, and how it finds the others.

    `storage` is what the storage tool is told of an empty disk.
    """

    number: int
    controller_port: int
    properties: Mapping[str, str]
    storage: tuple[str, ...]

    @classmethod
    def alone(cls) -> Self:
        """Return the place of a broker without others, on a new controller port each time."""
        port = free_port()
        return cls(
            number=1,
            controller_port=port,
            # Voters that stand here, and not in the data (as `format --standalone` would put
            # them), let the same data come up again on another controller port.
            properties={"controller.quorum.voters": f"1@{HOST}:{port}"},
            storage=("--cluster-id", new_cluster_id()),
        )


def server_properties(node: Node, ports: Mapping[str, int], more: Mapping[str, str]) -> str:
    """Return the file for a broker that listens on ``ports``, by listener; ``more`` wins."""
    listeners = [f"{name}://{HOST}:{port}" for name, port in ports.items()]
    protocols = [f"{name}:{name}" for name in ports]
    properties = _PROPERTIES | {
        "node.id": str(node.number),
        "listeners": ",".join([*listeners, f"CONTROLLER://{HOST}:{node.controller_port}"]),
        "advertised.listeners": ",".join(listeners),
        "listener.security.protocol.map": ",".join([*protocols, "CONTROLLER:PLAINTEXT"]),
        "log.dirs": "data",  # within the folder: a list, in which a path's comma would split
        **node.properties,
        **more,
    }
    return "".join(f"{key}={_escaped(text)}\n" for key, text in properties.items())


def new_cluster_id() -> str:
    """Return a random id in the form of Kafka's own."""
    while True:
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not cluster_id.startswith("-"):  # the tool would take it for an option
            return cluster_id


def _escaped(text: str) -> str:
    """Write `text` as the value of a Java properties file, which is Latin-1."""
    units = text.replace("\\", "\\\\").encode("utf-16-be")
    codes = struct.unpack(f">{len(units) // 2}H", units)
    return "".join(chr(code) if 0x20 <= code < 0x7F else f"\\u{code:04x}" for code in codes)  # noqa: PLR2004
