"""Every fault of a topic is reported with its remedy."""

import pytest

from ledger.topics import MAX_RECORD_BYTES, Topic, TopicNames, all_topics
from runtime.fault import Fault
from runtime.kafka.topic_metadata import PartitionState
from runtime.kafka.topic_records import partition_faults
from runtime.kafka.topic_states import TopicState, faults, setting_faults

TOPIC = Topic(name="topic.of.the.test", cleanup_policy="compact")


def of(*, replicas: int = 3, **config: str) -> list[Fault]:
    """Return the faults of a topic whose settings are right, except for the given settings."""
    given = TOPIC.config(2)
    given |= {key.replace("_", "."): value for key, value in config.items()}
    partitions = tuple(PartitionState(number, replicas, replicas) for number in range(2))
    state = TopicState(TOPIC.name, partitions, given)
    return list(faults(state, TOPIC, replication_factor=3, in_sync=2))


def test_a_good_topic_has_no_fault():
    assert of() == []


def test_values_above_the_minimum_and_a_compression_are_no_fault():
    assert of(replicas=4, max_message_bytes="20000000", min_insync_replicas="3") == []
    assert (
        of(delete_retention_ms="99999999999", message_timestamp_after_max_ms=str(2**63 - 1)) == []
    )
    assert of(compression_type="zstd") == []


def test_a_setting_that_an_older_broker_lacks_is_not_checked():
    given = {key: text for key, text in TOPIC.config().items() if "timestamp" not in key}
    assert [fault.what for fault in setting_faults(TOPIC.name, given, TOPIC.settings(1))] == [
        f"topic {TOPIC.name} has message.timestamp.type=None, expected CreateTime"
    ]


@pytest.mark.parametrize(
    ("given", "expected", "remedy"),
    [
        ({"replicas": 1}, "has 1 replica, expected 3", "LEDGER_REPLICATION_FACTOR=1"),
        ({"retention_ms": "1"}, "has retention.ms=1, expected -1", "retention.ms=-1"),
        ({"cleanup_policy": "delete"}, "has cleanup.policy=delete", "cleanup.policy=compact"),
        (
            {"max_message_bytes": "999"},
            f"has max.message.bytes=999, expected at least {MAX_RECORD_BYTES}",
            f"max.message.bytes={MAX_RECORD_BYTES}",
        ),
        (
            {"message_timestamp_type": "LogAppendTime"},
            "has message.timestamp.type=LogAppendTime, expected CreateTime",
            "message.timestamp.type=CreateTime",
        ),
        (
            {"unclean_leader_election_enable": "true"},
            "has unclean.leader.election.enable=true, expected false",
            "unclean.leader.election.enable=false",
        ),
    ],
)
def test_a_fault_names_the_topic_and_the_value_and_the_remedy(given, expected, remedy):
    (fault,) = of(**given)
    assert fault.what.startswith(f"topic topic.of.the.test {expected}")
    assert remedy in fault.remedy
    assert str(fault) == f"{fault.what}: {fault.remedy}"


def test_all_faults_of_a_topic_are_reported():
    assert len(of(replicas=2, retention_ms="1", cleanup_policy="delete")) == 3


NAMES = TopicNames()
FOUR = NAMES.made_with(4)
WANTED = [topic for topic in all_topics(NAMES, "g") if "changelog" not in topic.name]


def miscounted(existing: list[str], expected: int | None = 4, **raised: int) -> list[str]:
    """Return the faults if all topics have four partitions, except for the ``raised`` topics."""
    counts = {topic.name: 4 for topic in WANTED}
    counts |= {getattr(NAMES, name): count for name, count in raised.items()}
    return [str(fault) for fault in partition_faults(NAMES, existing, WANTED, counts, expected)]


@pytest.mark.parametrize("existing", [[FOUR], []], ids=["recorded", "of an earlier state"])
def test_the_remedy_for_a_raised_number_of_partitions_leaves_each_id_in_its_partition(existing):
    assert miscounted(existing) == []
    (fault,) = miscounted(existing, webhooks=8)
    assert fault.startswith(f"topic {NAMES.webhooks} has 8 partitions, but this ledger has 4: ")
    assert "LEDGER_PARTITIONS=4" in fault
    assert "LEDGER_PARTITIONS=8" not in fault
    assert "export-log" in fault


def test_the_recorded_number_stays_valid_if_all_topics_and_the_setting_are_raised():
    every = dict.fromkeys(("webhooks", "events", "payments", "entries", "orders"), 8)
    faults = miscounted([FOUR], 8, **every)
    assert faults[0] == (
        "this ledger has 4 partitions, but LEDGER_PARTITIONS is 8: set LEDGER_PARTITIONS=4"
    )
    assert len(faults) == 6
    assert len(miscounted([FOUR], None, **every)) == 5, "ingress has no such setting"


def test_additional_partitions_of_the_rejections_are_no_fault():
    assert miscounted([FOUR], rejected=8) == []


def test_two_topics_that_record_different_numbers_of_partitions_are_both_reported():
    (fault,) = miscounted([FOUR, NAMES.made_with(8)])
    assert f"{FOUR}, {NAMES.made_with(8)} record different numbers" in fault


def test_topics_that_record_no_valid_number_for_this_ledger_are_ignored():
    assert miscounted(["x.plexy.partitions-8", "plexy.partitions-", "plexy.partitions-eight"]) == []
