"""Writes ``server.properties`` for an embedded broker: its place in the cluster and its ports.

Every listener is on loopback, and every value is escaped as the file's format requires.
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
    # A missing topic must cause an error, so Kafka must not create the topic on demand.
    "auto.create.topics.enable": "false",
    "group.initial.rebalance.delay.ms": "0",
    # One broker holds every replica. Four partitions instead of fifty keep start-up short.
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    # With Kafka's default, a broker forgets the committed offsets of workers that were down for a
    # week.
    "offsets.retention.minutes": str(2**31 - 1),
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "4",
    # A killed broker can register again only after its old session has expired. With Kafka's
    # default session of 9 s, the restart of a killed broker takes 13 s. Four heartbeats fit into
    # one session.
    "broker.session.timeout.ms": "2000",
    "broker.heartbeat.interval.ms": "500",
    # Kafka's default is 128 MB, a quarter of our heap. A buffer of 16 MB is still enough to compact
    # 600,000 keys in one pass.
    "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A broker's place in a cluster: its number, its controller's port, and other properties.

    `storage` contains the arguments with which the storage tool formats an empty disk.
    """

    number: int
    controller_port: int
    properties: Mapping[str, str]
    storage: tuple[str, ...]

    @classmethod
    def alone(cls) -> Self:
        """Return the place of a single broker, with a new controller port at each call."""
        port = free_port()
        return cls(
            number=1,
            controller_port=port,
            # `format --standalone` would write the voters into the data. The data could then not be
            # used with a different controller port.
            properties={"controller.quorum.voters": f"1@{HOST}:{port}"},
            storage=("--cluster-id", new_cluster_id()),
        )


def server_properties(node: Node, ports: Mapping[str, int], more: Mapping[str, str]) -> str:
    """Return the file's content; ``ports`` maps listeners to ports; ``more`` overrides the rest."""
    listeners = [f"{name}://{HOST}:{port}" for name, port in ports.items()]
    protocols = [f"{name}:{name}" for name in ports]
    properties = _PROPERTIES | {
        "node.id": str(node.number),
        "listeners": ",".join([*listeners, f"CONTROLLER://{HOST}:{node.controller_port}"]),
        "advertised.listeners": ",".join(listeners),
        "listener.security.protocol.map": ",".join([*protocols, "CONTROLLER:PLAINTEXT"]),
        "log.dirs": "data",  # a relative path, because Kafka splits a path at each comma
        **node.properties,
        **more,
    }
    return "".join(f"{key}={_escaped(text)}\n" for key, text in properties.items())


def new_cluster_id() -> str:
    """Return a random id in Kafka's format."""
    while True:
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not cluster_id.startswith("-"):  # the storage tool would read the id as an option
            return cluster_id


def _escaped(text: str) -> str:
    """Write `text` as the value of a Java properties file, which is Latin-1."""
    units = text.replace("\\", "\\\\").encode("utf-16-be")
    codes = struct.unpack(f">{len(units) // 2}H", units)
    return "".join(chr(code) if 0x20 <= code < 0x7F else f"\\u{code:04x}" for code in codes)  # noqa: PLR2004
