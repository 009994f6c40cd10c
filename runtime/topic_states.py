"""How topics are: what Kafka says of them, and what of it is not as it must be.

In: an admin client and names, or a topic's state and what it must be. Out: ``TopicState`` values;
``Fault`` values, each with its remedy. Never: a change to a topic.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import LeaderNotAvailableError, UnknownTopicOrPartitionError, for_code

# Of these a topic may have more than it needs; everything else must be exactly so.
_AT_LEAST: Final = frozenset({"max.message.bytes", "min.insync.replicas"})


class Fault(msgspec.Struct, frozen=True):
    """What is not as it must be, and what to do about it."""

    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}: {self.remedy}"


class PartitionState(msgspec.Struct, frozen=True):
    """A partition: how many replicas it has, and how many of them have every record."""

    number: int
    replicas: int
    in_sync: int


class TopicState(msgspec.Struct, frozen=True):
    """A topic as it is; ``config`` has Kafka's own names."""

    name: str
    partitions: tuple[PartitionState, ...]
    config: Mapping[str, str | None]


async def read_states(admin: AIOKafkaAdminClient, names: Sequence[str]) -> list[TopicState] | None:
    """Ask for topics; ``None`` if the broker that was asked does not know all of them yet.

    A ``KafkaError`` says that it knows one, and does not tell.
    """
    described = await admin.describe_topics(list(names))
    if not all(_known(topic["topic"], topic["error_code"]) for topic in described):
        return None
    configs = await _configs(admin, names)
    if configs is None:
        return None
    return [
        TopicState(
            topic["topic"], tuple(map(_partition, topic["partitions"])), configs[topic["topic"]]
        )
        for topic in described
    ]


def faults(
    state: TopicState, *, partitions: int, replication_factor: int, config: Mapping[str, str]
) -> Iterator[Fault]:
    """Yield what of a topic is not as it must be."""
    count = len(state.partitions)
    if count != partitions:
        yield Fault(
            f"topic {state.name} has {count} partitions, expected {partitions}",
            f"set LEDGER_PARTITIONS={count}, or start a new ledger with another "
            "LEDGER_TOPIC_PREFIX",
        )
    replicas = min(partition.replicas for partition in state.partitions)
    if replicas < replication_factor:
        yield Fault(
            f"topic {state.name} has {replicas} replicas, expected {replication_factor}",
            "add some with `kafka-reassign-partitions.sh`, or set "
            f"LEDGER_REPLICATION_FACTOR={replicas}",
        )
    for key, expected in config.items():
        got = state.config.get(key)
        enough = key in _AT_LEAST and int(got or 0) >= int(expected)
        if got != expected and not enough:
            yield Fault(
                f"topic {state.name} has {key}={got}, expected {expected}",
                f"change it with `kafka-configs.sh --alter --topic {state.name} --add-config "
                f"{key}={expected}`",
            )


def _partition(described: Mapping[str, Any]) -> PartitionState:
    return PartitionState(described["partition"], len(described["replicas"]), len(described["isr"]))


async def _configs(
    admin: AIOKafkaAdminClient, names: Sequence[str]
) -> dict[str, dict[str, str | None]] | None:
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    configs: dict[str, dict[str, str | None]] = {}
    for response in await admin.describe_configs(resources):
        for code, _message, _kind, name, entries in response.resources:
            if not _known(name, code):
                return None
            configs[name] = {key: value for key, value, *_ in entries}
    return configs


def _known(name: str, code: int) -> bool:
    """Return whether a broker knows a topic; a ``KafkaError`` if it won't say."""
    if code in {0, UnknownTopicOrPartitionError.errno, LeaderNotAvailableError.errno}:
        return code == 0
    raise for_code(code)(f"topic {name}")
