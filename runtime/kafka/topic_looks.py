"""Compares a ledger's topics with the expected ones.

Input: a connected client, and the settings with which the ledger was created. Output: an
``Examination``. Ingress, workers, `topics --check`, `status` and `doctor` share this module, so
their judgements agree; each program uses the parts that concern it. Invariant: nothing is changed.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import msgspec
from aiokafka.client import AIOKafkaClient

from ledger.topics import IN_SYNC, Topic, TopicNames
from runtime.kafka.topic_metadata import FoundTopic, read_topics
from runtime.kafka.topic_states import Fault, TopicState, count_fault, faults, read_configs

WHO_DELETED: Final = "find out who deleted them, or which setting did"
_RESTORE: Final = "`plexy-ledger import-log` and the next LEDGER_VERSION (docs/recovery.md)"

_HIDDEN: Final = (
    "If they exist, this user lacks the right Describe on them (docs/kafka.md has the rights)"
)


class TopicsError(RuntimeError):
    """A topic can't be created, or is not as expected; the fault has the remedy."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        super().__init__(str(fault))


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """The settings with which a ledger was created, as far as a program has them.

    ``None`` means that the program lacks the setting. The topic that records the number of
    partitions then decides, because it was created with the same settings as all others.
    """

    partitions: int | None = None
    replication_factor: int = 1
    min_insync_replicas: int | None = None


class Examination(msgspec.Struct, frozen=True):
    """The state of each existing topic, and all differences from the expected topics.

    - ``missing``: topics without any sign that they ever existed.
    - ``unrecorded``: missing or hidden topics whose names alone record a fact.
    - ``lost``: topics that existed, and must not be created again as empty ones.
    - ``replaced``: topics that were deleted and created again.
    - ``miscounted``: wrong numbers of partitions.
    - ``faults``: settings and replicas; ``in_sync`` is the expected ``min.insync.replicas``.
    - ``deletions``: topics that are kept forever, but have lost records; ``deleted_records`` has
      the number of lost records by topic.
    """

    missing: tuple[str, ...] = ()
    unrecorded: tuple[str, ...] = ()
    lost: tuple[Fault, ...] = ()
    replaced: tuple[Fault, ...] = ()
    miscounted: tuple[Fault, ...] = ()
    faults: tuple[Fault, ...] = ()
    states: tuple[TopicState, ...] = ()
    in_sync: int = 1
    deletions: tuple[Fault, ...] = ()
    deleted_records: Mapping[str, int] = {}

    @property
    def ids(self) -> dict[str, str]:
        """The id of each topic; empty texts where Kafka has no ids."""
        return {state.name: state.topic_id for state in self.states}

    @property
    def absent(self) -> tuple[str, ...]:
        """The topics that can be created, in the required order."""
        return (*self.unrecorded, *self.missing)

    @property
    def fatal(self) -> tuple[Fault, ...]:
        """The faults that forbid every append and every fold."""
        absent = (missing_fault(self.absent),) if self.absent else ()
        return (*self.lost, *self.replaced, *self.miscounted, *absent)


async def look_at_topics(
    client: AIOKafkaClient, names: TopicNames, wanted: Sequence[Topic], made: Made
) -> Examination | None:
    """Compare topics with the expected ones, with two requests to any broker.

    Returns ``None`` if the broker does not know all the topics yet. The groups' commits would show
    which topics are lost, but not every program has the right to read commits.
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
    lost = tuple(_lost_log(names, found))
    return Examination(
        missing=tuple(
            topic.name
            for topic in wanted
            if topic.name not in found and not (lost and topic.name == names.webhooks)
        ),
        unrecorded=tuple(_unrecorded(names, found, made)),
        lost=lost,
        replaced=tuple(_replaced_log(names, found)),
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


def partition_faults(
    names: TopicNames,
    existing: Iterable[str],
    topics: Iterable[Topic],
    counts: Mapping[str, int],
    expected: int | None = None,
) -> Iterator[Fault]:
    """Yield the topics whose number of partitions differs from the ledger's.

    If the ledger of an earlier release has not recorded that number, the smallest number is right:
    the topics were created with equal numbers, and Kafka can only raise a topic's number.
    ``expected`` is the setting.
    """
    recorded = names.recorded_partitions(existing)
    if len(recorded) > 1:
        records = ", ".join(map(names.made_with, recorded))
        yield Fault(
            f"{records} record different numbers of partitions for one ledger",
            "find out which number is right, and delete the topics that record another one",
        )
        return
    made_with = min(recorded or counts.values(), default=expected)
    if made_with is None:
        return
    if expected is not None and made_with != expected:
        yield Fault(
            f"this ledger has {made_with} partitions, and LEDGER_PARTITIONS is {expected}",
            f"set LEDGER_PARTITIONS={made_with}",
        )
    for topic in topics:
        count = counts.get(topic.name, made_with)
        if count < made_with or (count > made_with and not topic.spare_partitions):
            yield count_fault(topic.name, count, made_with)


def missing_fault(names: Iterable[str]) -> Fault:
    """Return the fault of topics that were never created."""
    return Fault(
        f"missing topics: {', '.join(names)}",
        f"create them with `plexy-ledger topics`. {_HIDDEN}",
    )


def lost_fault(names: Iterable[str], why: str) -> Fault:
    """Return the fault of topics that are lost; ``why`` shows that they existed."""
    return Fault(
        f"missing topics: {', '.join(names)}. {why}, so these topics existed and are lost",
        f"restore the log of record itself from a backup, with {_RESTORE}; all other topics are "
        f"folded from the log by `plexy-ledger rebuild`. {_HIDDEN}",
    )


def changed(ids: Mapping[str, str], known_ids: Mapping[str, str]) -> Iterator[Fault]:
    """Yield the faults of topics that had a different id at an earlier time."""
    for topic, topic_id in ids.items():
        known = known_ids.get(topic, topic_id)
        # An upgraded cluster gives ids to topics that had none.
        if known and topic_id and known != topic_id:
            yield Fault(
                f"topic {topic} was deleted and created again: its id was {known} and is "
                f"{topic_id}",
                "find out who did so, then fold the log from scratch with `plexy-ledger rebuild`",
            )


def _unrecorded(names: TopicNames, found: Mapping[str, FoundTopic], made: Made) -> Iterator[str]:
    if not names.recorded_partitions(found):
        yield names.made_with(made.partitions or "…")
    log = found.get(names.webhooks)
    if log and log.topic_id and not names.recorded_logs(found):
        yield names.log_record(log.topic_id)


def _lost_log(names: TopicNames, found: Mapping[str, FoundTopic]) -> Iterator[Fault]:
    """Yield the fault of a log that is recorded, but missing."""
    records = list(map(names.log_record, names.recorded_logs(found)))
    if records and names.webhooks not in found:
        yield lost_fault([names.webhooks], f"{', '.join(records)} has recorded the log")


def _replaced_log(names: TopicNames, found: Mapping[str, FoundTopic]) -> Iterator[Fault]:
    """Yield the fault of a log whose id is not recorded.

    The record of a restored log is added to the record of the replaced log. The replaced log can't
    return, because Kafka gives each topic a new id.
    """
    log, recorded = found.get(names.webhooks), names.recorded_logs(found)
    if log and log.topic_id and recorded and log.topic_id not in recorded:
        records = ", ".join(map(names.log_record, recorded))
        yield Fault(
            f"topic {names.webhooks} was deleted and created again: its id is {log.topic_id}, and "
            f"{records} has recorded another one",
            f"stop the programs, and restore the log from a backup, with {_RESTORE}. Without a "
            "backup, begin a new ledger with another LEDGER_TOPIC_PREFIX",
        )
