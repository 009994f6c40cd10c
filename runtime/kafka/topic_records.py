"""Compares a ledger's topics with the facts that the names of empty topics record.

In this module, a record is an empty topic whose name states a fact: the number of partitions, the
id of the log, or the ids of a version's other topics. Input: the topics of a cluster. Output: the
records that are missing, and the faults of topics that differ from their records. Kafka gives no id
twice. So if a topic is deleted and created again, its id differs from the recorded id. A cluster
whose topics have no ids has no records of ids.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from ledger.topics import Topic, TopicNames, beginning_of
from runtime.fault import Fault
from runtime.kafka.topic_metadata import FoundTopic
from runtime.kafka.topic_states import count_fault

_REBUILD: Final = "find out who did so, then fold the log from scratch with `plexy-ledger rebuild`"
_RESTORE: Final = "`plexy-ledger import-log` and the next LEDGER_VERSION (docs/recovery.md)"

_HIDDEN: Final = (
    "If they exist, this user lacks the right Describe on them (docs/kafka.md has the rights)"
)

Found = Mapping[str, FoundTopic]
"""The topics of a cluster that this user may see, by name."""


def unrecorded(
    names: TopicNames, found: Found, wanted: Iterable[Topic], partitions: int | None
) -> Iterator[str]:
    """Yield the names of the records that are missing although their facts are known."""
    if not names.recorded_partitions(found):
        yield names.made_with(partitions or "…")
    log = found.get(names.webhooks)
    if log and log.topic_id and not names.recorded_logs(found):
        yield names.log_record(log.topic_id)
    topics = _of_version(names, wanted)
    ids = [found[topic].topic_id for topic in topics if topic in found]
    if topics and len(ids) == len(topics) and all(ids) and not names.recorded_topics(found):
        yield names.topics_record(ids)


def lost_topics(names: TopicNames, found: Found, wanted: Iterable[Topic]) -> dict[str, Fault]:
    """Return the faults of recorded topics that are missing, by topic."""
    faults = {}
    logs = list(map(names.log_record, names.recorded_logs(found)))
    if logs and names.webhooks not in found:
        faults[names.webhooks] = lost_fault(
            [names.webhooks], f"{', '.join(logs)} has recorded the log"
        )
    lost = [topic for topic, known in _recorded(names, found, wanted) if topic not in found]
    if lost:
        why = f"{', '.join(_records(names, found))} has recorded their ids"
        faults |= dict.fromkeys(lost, lost_fault(lost, why))
    return faults


def replaced_topics(names: TopicNames, found: Found, wanted: Iterable[Topic]) -> dict[str, Fault]:
    """Return the faults of topics whose ids differ from the recorded ids, by topic.

    A restored log gets a record of its own, next to the replaced log's record. The replaced log
    can't return, because Kafka gives each new topic a new id.
    """
    faults = {}
    log, logs = found.get(names.webhooks), names.recorded_logs(found)
    if log and log.topic_id and logs and log.topic_id not in logs:
        records = ", ".join(map(names.log_record, logs))
        faults[names.webhooks] = _replaced(
            names.webhooks,
            log.topic_id,
            records,
            f"stop the programs, and restore the log from a backup, with {_RESTORE}. Without a "
            "backup, begin a new ledger with another LEDGER_TOPIC_PREFIX",
        )
    records = ", ".join(_records(names, found))
    for topic, known in _recorded(names, found, wanted):
        topic_id = found[topic].topic_id if topic in found else ""
        if topic_id and beginning_of(topic_id) not in known:
            faults[topic] = _replaced(topic, topic_id, records, _REBUILD)
    return faults


def partition_faults(
    names: TopicNames,
    existing: Iterable[str],
    topics: Iterable[Topic],
    counts: Mapping[str, int],
    expected: int | None = None,
) -> Iterator[Fault]:
    """Yield the faults of the topics whose number of partitions differs from the ledger's number.

    If an earlier release created the ledger, the ledger's number may not be recorded. In that case,
    the smallest number that any of the topics has is right: the topics were created with equal
    numbers, and Kafka can only raise a topic's number. ``expected`` is the number in the settings.
    """
    recorded = names.recorded_partitions(existing)
    if len(recorded) > 1:
        records = ", ".join(map(names.made_with, recorded))
        yield Fault(
            f"{records} record different numbers of partitions for one ledger",
            "find out which number is right, and delete the topics that record a different number",
        )
        return
    made_with = min(recorded or counts.values(), default=expected)
    if made_with is None:
        return
    if expected is not None and made_with != expected:
        yield Fault(
            f"this ledger has {made_with} partitions, but LEDGER_PARTITIONS is {expected}",
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


def _of_version(names: TopicNames, wanted: Iterable[Topic]) -> list[str]:
    """Return the topics of ``wanted`` whose ids a version records.

    If ``wanted`` has only the topics that ingress uses, return an empty list.
    """
    topics = [topic.name for topic in wanted if topic.name != names.webhooks]
    return topics if names.events in topics else []


def _recorded(
    names: TopicNames, found: Found, wanted: Iterable[Topic]
) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield each recorded topic with the recorded beginnings of its id."""
    yield from zip(
        _of_version(names, wanted), zip(*names.recorded_topics(found), strict=False), strict=False
    )


def _records(names: TopicNames, found: Found) -> list[str]:
    return list(map(names.topics_record, names.recorded_topics(found)))


def _replaced(topic: str, topic_id: str, records: str, remedy: str) -> Fault:
    what = (
        f"topic {topic} was deleted and created again: its id is {topic_id}, and {records} has "
        "recorded a different id"
    )
    return Fault(what, remedy)
