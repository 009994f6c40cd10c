"""Reads the states of topics, and finds their differences from the expected states.

Input: a client and the names of topics, or the state of a topic and the expected state. Output:
settings and offsets, or ``Fault`` values, each with its remedy. Invariant: this module changes no
topic.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import msgspec
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResourceType
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import (
    KafkaError,
    LeaderNotAvailableError,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.protocol.admin import DescribeConfigsRequest
from aiokafka.protocol.offset import OffsetRequest

from ledger.topics import LIMIT, MAX_RECORD_BYTES, Topic, TopicSetting
from runtime.fault import Fault
from runtime.kafka.internals import ask_node
from runtime.kafka.topic_metadata import PartitionState, ask_any

TIME_REFUSED: Final = (
    "Kafka refuses records because of their time: this machine's clock is ahead of the brokers' by "
    "more than the topic's message.timestamp.after.max.ms (an hour); use a time server (NTP)"
)
"""The meaning of a broker's ``InvalidTimestampError`` for a new record, and the remedy."""

_RESOURCE: Final = int(ConfigResourceType.TOPIC)
_ALL_SETTINGS: Final = None
# Kafka's codes in a request for offsets: the client is not a replica, uncommitted records also
# count, and the client asks for the first offset.
_NO_REPLICA: Final = -1
_UNCOMMITTED_TOO: Final = 0
_EARLIEST: Final = -2
# In all versions of Kafka, a batch must also fit into a segment.
_LIMITS: Final = (LIMIT, "segment.bytes")


class TopicState(msgspec.Struct, frozen=True):
    """The state of a topic; ``config`` has the settings under Kafka's own names.

    ``topic_id`` is empty if the brokers do not give topics ids.
    """

    name: str
    partitions: tuple[PartitionState, ...]
    config: Mapping[str, str | None]
    topic_id: str = ""


def faults(
    state: TopicState, topic: Topic, *, replication_factor: int, in_sync: int
) -> Iterator[Fault]:
    """Yield the faults of a topic: too few replicas, and settings that are not as expected."""
    replicas = min(partition.replicas for partition in state.partitions)
    if replicas < replication_factor:
        has = "1 replica" if replicas == 1 else f"{replicas} replicas"
        yield Fault(
            f"topic {state.name} has {has}, expected {replication_factor}",
            "add some with `kafka-reassign-partitions.sh`, or set "
            f"LEDGER_REPLICATION_FACTOR={replicas}",
        )
    yield from setting_faults(state.name, state.config, topic.settings(in_sync))


def count_fault(topic: str, count: int, made_with: int) -> Fault:
    """Return the fault of a topic whose number of partitions differs from its ledger's number.

    A change of ``LEDGER_PARTITIONS`` is no remedy: a redelivered event would reach a partition that
    has not seen the event's id, and the sale would be posted twice.
    """
    return Fault(
        f"topic {topic} has {count} partitions, but this ledger has {made_with}",
        "Kafka can't remove partitions, and keys would move to other partitions. Bring the log "
        "into a new ledger with `plexy-ledger export-log`, then `plexy-ledger import-log` with "
        f"another LEDGER_TOPIC_PREFIX and LEDGER_PARTITIONS={made_with}; if this topic is not the "
        "log of record, `plexy-ledger rebuild` makes another version of it",
    )


def setting_faults(
    name: str, config: Mapping[str, str | None], needed: Iterable[TopicSetting]
) -> Iterator[Fault]:
    """Yield a fault for each setting of a topic that is not as expected."""
    for setting in needed:
        got = config.get(setting.name)
        if not setting.is_right(got):
            least = "at least " if setting.accepts == "no less" else ""
            yield Fault(
                f"topic {name} has {setting.name}={got}, expected {least}{setting.value}",
                f"change it with {_change(name, setting.name, setting.value)}",
                setting.refuses_some,
            )


def most_bytes(config: Mapping[str, str | None]) -> int:
    """Return the size of the largest batch that a topic's settings accept."""
    return min(int(config.get(name) or MAX_RECORD_BYTES) for name in _LIMITS)


def size_fault(topic: str, limit_bytes: int, size_bytes: int) -> Fault:
    """Return the fault of a record that is too large for its topic."""
    return Fault(
        f"topic {topic} takes at most {limit_bytes} bytes, but this record has {size_bytes}",
        f"raise the limit with {_change(topic, LIMIT, str(MAX_RECORD_BYTES))}",
    )


def _change(topic: str, name: str, value: str) -> str:
    return f"`kafka-configs.sh --alter --topic {topic} --add-config {name}={value}`"


async def read_begins(
    admin: AIOKafkaAdminClient, names: Sequence[str]
) -> dict[str, dict[int, int]]:
    """Return the first offset of each partition, if the partition's leader answers."""
    asked: defaultdict[int, list[tuple[str, list[tuple[int, int]]]]] = defaultdict(list)
    for topic in await admin.describe_topics(list(names)):
        for each in topic["partitions"]:
            # If a partition has no leader, the admin client would search for the leader for 15 s.
            if each["leader"] >= 0:
                place = (each["partition"], _EARLIEST)
                asked[each["leader"]].append((topic["topic"], [place]))
    begins: dict[str, dict[int, int]] = {name: {} for name in names}
    for leader, places in asked.items():
        request = OffsetRequest(_NO_REPLICA, _UNCOMMITTED_TOO, places)
        try:
            answer = await ask_node(admin, leader, request)
        except (KafkaError, TimeoutError):
            # The leader is down.
            continue
        for name, partitions in answer.topics:
            for number, code, _timestamp, offset, *_ in partitions:
                if code == 0:
                    begins[name][number] = offset
    return begins


def deletion_fault(topic: str, begins: Mapping[int, int], remedy: str) -> Fault | None:
    """Return the fault of a topic that must begin at offset 0; ``None`` if it begins there."""
    lost = {number: begin for number, begin in sorted(begins.items()) if begin}
    if not lost:
        return None
    places = ", ".join(f"partition {n} begins at offset {begin}" for n, begin in lost.items())
    return Fault(f"topic {topic} has lost {sum(lost.values())} records: {places}", remedy)


async def read_configs(
    client: AIOKafkaClient, names: Sequence[str]
) -> dict[str, dict[str, str | None]] | None:
    """Return the settings that are in effect for topics, including the brokers' defaults.

    Return ``None`` if the asked broker does not know all the topics yet. Raise ``KafkaError`` if
    the broker refuses to show the settings of a topic.
    """
    request = DescribeConfigsRequest([(_RESOURCE, name, _ALL_SETTINGS) for name in names])
    configs: dict[str, dict[str, str | None]] = {}
    for code, _message, _kind, name, entries in (await ask_any(client, request)).resources:
        if not _known(name, code):
            return None
        configs[name] = {key: value for key, value, *_ in entries}
    return configs


def _known(name: str, code: int) -> bool:
    """Return whether a broker knows a topic; raise ``KafkaError`` for any other error code."""
    if code in {0, UnknownTopicOrPartitionError.errno, LeaderNotAvailableError.errno}:
        return code == 0
    raise for_code(code)(f"topic {name}")
