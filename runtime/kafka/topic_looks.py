"""Compares a ledger's topics with the expected topics.

Input: a connected client, and the settings with which the ledger was created. Output: an
``Examination``. Ingress, workers, `topics --check`, `status` and `doctor` share this module, so
their judgements agree. Each program uses the parts of the examination that concern the program.
Invariant: this module changes no topic.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Literal

import msgspec
from aiokafka.client import AIOKafkaClient

from ledger.topics import IN_SYNC, Topic, TopicNames
from runtime.fault import Fault
from runtime.kafka.topic_metadata import read_topics
from runtime.kafka.topic_records import (
    lost_topics,
    missing_fault,
    partition_faults,
    replaced_topics,
    unrecorded,
)
from runtime.kafka.topic_states import TopicState, faults, read_configs

WHO_DELETED: Final = "find out who deleted them, or which setting did"

FaultCode = Literal[
    "topic_missing", "topic_replaced", "partitions_wrong", "topic_wrong", "records_deleted"
]
"""What kind of fault a topic has, as `status` shows it."""

_FATAL: Final = frozenset[FaultCode]({"topic_missing", "topic_replaced", "partitions_wrong"})


class TopicsError(RuntimeError):
    """A topic can't be created, or is not as expected; the fault has the remedy."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        super().__init__(str(fault))


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """The settings with which a ledger was created, as far as a program has them.

    ``None`` means that the program lacks the setting. In that case, the program takes the value
    from the topic that records the number of partitions, because that topic was created with the
    same settings as all other topics.
    """

    partitions: int | None = None
    replication_factor: int = 1
    min_insync_replicas: int | None = None


class Examination(msgspec.Struct, frozen=True):
    """The state of each existing topic, and all differences from the expected topics.

    - ``missing``: missing topics; nothing shows that they ever existed.
    - ``unrecorded``: topics whose names alone record something, such as the number of partitions,
      and that are missing, or hidden from this user.
    - ``lost``: missing topics that once existed, each with its fault; they must not be created
      again, because they would be empty.
    - ``replaced``: topics that were deleted and created again, each with its fault.
    - ``miscounted``: the faults of topics with wrong numbers of partitions.
    - ``faults``: wrong settings and wrong numbers of replicas; ``in_sync`` is the expected
      ``min.insync.replicas``.
    - ``deletions``: the faults of topics that are kept forever, but have lost records;
      ``deleted_records`` has the number of lost records by topic.
    """

    missing: tuple[str, ...] = ()
    unrecorded: tuple[str, ...] = ()
    lost: Mapping[str, Fault] = {}
    replaced: Mapping[str, Fault] = {}
    miscounted: tuple[Fault, ...] = ()
    faults: tuple[Fault, ...] = ()
    states: tuple[TopicState, ...] = ()
    in_sync: int = 1
    deletions: tuple[Fault, ...] = ()
    deleted_records: Mapping[str, int] = {}

    @property
    def ids(self) -> dict[str, str]:
        """The id of each topic; the id is an empty text if the brokers give topics no ids."""
        return {state.name: state.topic_id for state in self.states}

    @property
    def absent(self) -> tuple[str, ...]:
        """The topics that can be created, in the required order."""
        return (*self.unrecorded, *self.missing)

    @property
    def fatal(self) -> tuple[Fault, ...]:
        """The faults that forbid every append and every fold."""
        return tuple(fault for code, fault in self.by_code() if code in _FATAL)

    def by_code(self) -> Iterator[tuple[FaultCode, Fault]]:
        """Yield every fault of the topics, the worst first.

        Every program that judges topics takes the faults from this method, so no two programs
        disagree.
        """
        yield from (("topic_missing", fault) for fault in dict.fromkeys(self.lost.values()))
        yield from (("topic_replaced", fault) for fault in self.replaced.values())
        yield from (("partitions_wrong", fault) for fault in self.miscounted)
        if self.absent:
            yield "topic_missing", missing_fault(self.absent)
        yield from (("topic_wrong", fault) for fault in self.faults)
        yield from (("records_deleted", fault) for fault in self.deletions)


async def look_at_topics(
    client: AIOKafkaClient, names: TopicNames, wanted: Sequence[Topic], made: Made
) -> Examination | None:
    """Compare topics with the expected topics, with two requests to any broker.

    Return ``None`` if the broker does not know all the topics yet. This function does not read the
    groups' commits. They would show further lost topics, but not every program has the right to
    read commits.
    """
    found = await read_topics(client)
    existing = [topic for topic in wanted if topic.name in found]
    asked = [topic.name for topic in existing]
    records = [names.made_with(number) for number in names.recorded_partitions(found)]
    if made.min_insync_replicas is None:
        asked += records
    configs = await read_configs(client, asked) if asked else {}
    if configs is None:
        return None
    in_sync = made.min_insync_replicas or max(
        (int(configs[name][IN_SYNC] or 1) for name in records), default=1
    )
    states = [
        TopicState(name, found[name].partitions, configs[name], found[name].topic_id)
        for name in (topic.name for topic in existing)
    ]
    lost = lost_topics(names, found, wanted)
    return Examination(
        missing=tuple(
            topic.name for topic in wanted if topic.name not in found and topic.name not in lost
        ),
        unrecorded=tuple(unrecorded(names, found, wanted, made.partitions)),
        lost=lost,
        replaced=replaced_topics(names, found, wanted),
        miscounted=tuple(
            partition_faults(names, found, wanted, counts_of(states), made.partitions)
        ),
        faults=tuple(
            fault
            for topic, state in zip(existing, states, strict=True)
            for fault in faults(
                state, topic, replication_factor=made.replication_factor, in_sync=in_sync
            )
        ),
        states=tuple(states),
        in_sync=in_sync,
    )


def counts_of(states: Iterable[TopicState]) -> dict[str, int]:
    """Return the number of each topic's partitions."""
    return {state.name: len(state.partitions) for state in states}
