"""What of a topic is not as it must be is named with the remedy, all of it."""

import pytest

from runtime.topic_states import Fault, PartitionState, TopicState, faults

CONFIG = {"retention.ms": "-1", "cleanup.policy": "delete", "max.message.bytes": "1000"}


def of(*, count: int = 2, replicas: int = 3, **config: str) -> list[Fault]:
    """Return the faults of a topic that is good but for what is given."""
    given = CONFIG | {key.replace("_", "."): value for key, value in config.items()}
    partitions = tuple(PartitionState(number, replicas, replicas) for number in range(count))
    state = TopicState("topic.of.the.test", partitions, given)
    return list(faults(state, partitions=2, replication_factor=3, config=CONFIG))


def test_of_a_good_topic_there_is_nothing_to_say():
    assert of() == []
    assert of(replicas=4, max_message_bytes="2000") == [], "more than is needed is no fault"


@pytest.mark.parametrize(
    ("given", "told", "remedy"),
    [
        ({"count": 1}, "has 1 partitions, expected 2", "LEDGER_PARTITIONS=1"),
        ({"replicas": 1}, "has 1 replicas, expected 3", "LEDGER_REPLICATION_FACTOR=1"),
        ({"retention_ms": "1"}, "has retention.ms=1, expected -1", "retention.ms=-1"),
        ({"cleanup_policy": "compact"}, "has cleanup.policy=compact", "cleanup.policy=delete"),
        ({"max_message_bytes": "999"}, "has max.message.bytes=999", "max.message.bytes=1000"),
    ],
)
def test_a_fault_names_topic_value_and_remedy(given, told, remedy):
    (fault,) = of(**given)
    assert fault.what.startswith(f"topic topic.of.the.test {told}")
    assert remedy in fault.remedy
    assert str(fault) == f"{fault.what}: {fault.remedy}"


def test_all_faults_are_named():
    assert len(of(count=3, replicas=2, retention_ms="1", cleanup_policy="compact")) == 4
