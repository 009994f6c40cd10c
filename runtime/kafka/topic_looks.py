"""One look at a ledger's topics: what is missing, or is not as the ledger needs it.

Input: a connected client, and how the ledger was made. Output: an ``Examination``, of which each
program heeds its part. Ingress, workers, `topics --check`, `status` and `doctor` share this look,
so that they agree. Invariant: the look creates and changes nothing.
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
    """A topic can't be created, or is not as the ledger needs it; the fault has the remedy."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        super().__init__(str(fault))


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """How a ledger was made, as a program's settings say it.

    ``None`` is for a program without the setting. It goes by the topic that records the number of
    partitions, because that topic was created with the same settings as all others.
    """

    partitions: int | None = None
    replication_factor: int = 1
    min_insync_replicas: int | None = None


class Examination(msgspec.Struct, frozen=True):
    """All that is not as a ledger needs it, and how each topic is that exists.

    - ``missing``: topics that were never created, as far as anything shows.
    - ``unrecorded``: topics without records that are missing, or hidden from this user.
    - ``lost``: topics that existed, and must not be created again, empty.
    - ``replaced``: topics that were deleted and created again.
    - ``miscounted``: numbers of partitions.
    - ``faults``: settings and replicas; ``in_sync`` is the expected ``min.insync.replicas``.
    - ``deletions``: topics that are kept forever and have lost records; ``deleted_records`` has
      how many each one has lost.
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
        """The topics that can be created, in the order in which they must be."""
        return (*self.unrecorded, *self.missing)

    @property
    def fatal(self) -> tuple[Fault, ...]:
        """The faults with which nothing may be appended or folded."""
        absent = (missing_fault(self.absent),) if self.absent else ()
        return (*self.lost, *self.replaced, *self.miscounted, *absent)


async def look_at_topics(
    client: AIOKafkaClient, names: TopicNames, wanted: Sequence[Topic], made: Made
) -> Examination | None:
    """Compare topics with what they must be, by two questions to any broker.

    ``None`` if the broker does not know all of them yet. Which topics a group has folded is not
    asked: not every program may read that.
    """
    found = await read_topics(client)
    there = [topic for topic in wanted if topic.name in found]
    asked = [topic.name for topic in there]
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
        for name in (topic.name for topic in there)
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
            for topic, state in zip(there, states, strict=True)
            for fault in faults(
                state, topic, replication_factor=made.replication_factor, in_sync=in_sync
            )
        ),
        states=tuple(states),
        in_sync=in_sync,
    )


def counts_of(states: Iterable[TopicState]) -> dict[str, int]:
    """Return how many partitions each topic has."""
    return {state.name: len(state.partitions) for state in states}


def partition_faults(
    names: TopicNames,
    existing: Iterable[str],
    topics: Iterable[Topic],
    counts: Mapping[str, int],
    expected: int | None = None,
) -> Iterator[Fault]:
    """Yield what is wrong with the numbers of partitions, by what the ledger was made with.

    A ledger of an earlier state has no record of it yet. Its topics were made alike, and Kafka can
    only raise their numbers: so it was made with the smallest one. ``expected`` is the setting.
    """
    recorded = names.recorded_partitions(existing)
    if len(recorded) > 1:
        records = ", ".join(map(names.made_with, recorded))
        yield Fault(
            f"{records} record different numbers of partitions for one ledger",
            "find out with which one it was made, and delete the other topics of these",
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
    """Return the fault of topics that existed; ``why`` says how that is known."""
    return Fault(
        f"missing topics: {', '.join(names)}. {why}, so these topics were there and are lost",
        "what follows from the log of record is folded from scratch by `plexy-ledger rebuild`; "
        f"the log itself comes from a backup, with {_RESTORE}. {_HIDDEN}",
    )


def changed(ids: Mapping[str, str], known_ids: Mapping[str, str]) -> Iterator[Fault]:
    """Yield the faults of topics that had other ids at an earlier look."""
    for topic, topic_id in ids.items():
        known = known_ids.get(topic, topic_id)
        # A cluster that is upgraded gives ids to topics that had none.
        if known and topic_id and known != topic_id:
            yield Fault(
                f"topic {topic} was deleted and created again: its id was {known} and is "
                f"{topic_id}",
                "find out who did that, then fold the log from scratch with `plexy-ledger rebuild`",
            )


def _unrecorded(names: TopicNames, found: Mapping[str, FoundTopic], made: Made) -> Iterator[str]:
    if not names.recorded_partitions(found):
        yield names.made_with(made.partitions or "…")
    log = found.get(names.webhooks)
    if log and log.topic_id and not names.recorded_logs(found):
        yield names.log_record(log.topic_id)


def _lost_log(names: TopicNames, found: Mapping[str, FoundTopic]) -> Iterator[Fault]:
    """Yield the fault of a log that was recorded, and is missing."""
    records = list(map(names.log_record, names.recorded_logs(found)))
    if records and names.webhooks not in found:
        yield lost_fault([names.webhooks], f"{', '.join(records)} has recorded the log")


def _replaced_log(names: TopicNames, found: Mapping[str, FoundTopic]) -> Iterator[Fault]:
    """Yield the fault of a log that is none of those that were recorded.

    A log that was restored is recorded in addition to the one that it replaces, which can't come
    back: Kafka gives each topic a new id.
    """
    log, recorded = found.get(names.webhooks), names.recorded_logs(found)
    if log and log.topic_id and recorded and log.topic_id not in recorded:
        records = ", ".join(map(names.log_record, recorded))
        yield Fault(
            f"topic {names.webhooks} was deleted and created again: its id is {log.topic_id}, and "
            f"{records} has recorded another one",
            f"stop the programs, and bring the log back from a backup, with {_RESTORE}. Without a "
            "backup, begin a new ledger with another LEDGER_TOPIC_PREFIX",
        )
