"""Checks the topics: missing topics, wrong settings, deleted records, and replicas out of sync.

The checks create and change no topic.
"""

import asyncio
from collections.abc import Iterator, Sequence

from cli.doctor.checks import CheckResult, Patient, ok, problem, problem_of, warning
from runtime.kafka.connection import KafkaSettings
from runtime.kafka.topic_looks import Examination, TopicsError
from runtime.kafka.topic_states import TopicState
from runtime.kafka.topics import TopicSettings, examine_log, examine_topics


def check_topics(patient: Patient) -> Iterator[CheckResult]:
    """Check every topic of the ledger, if Kafka has answered."""
    if not patient.readers("LEDGER_TOPIC_PREFIX"):
        return
    if patient.cluster is None:
        yield warning("the topics were not checked", "start Kafka, then run `doctor` again")
        return
    try:
        yield from _all(patient) if patient.readers("LEDGER_PARTITIONS") else _shared(patient)
    except TopicsError as error:
        yield problem_of(error.fault)


def _all(patient: Patient) -> Iterator[CheckResult]:
    settings = TopicSettings.from_environment(patient.environment)
    yield from judge(asyncio.run(examine_topics(settings)))


def _shared(patient: Patient) -> Iterator[CheckResult]:
    """Check only the topics that ingress needs: it may have no right to see other topics."""
    settings = KafkaSettings.from_environment(patient.environment)
    yield from judge(asyncio.run(examine_log(settings)))


def judge(examination: Examination) -> Iterator[CheckResult]:
    """Turn an examination into results."""
    faults = [fault for _, fault in examination.by_code()]
    for fault in faults:
        yield problem_of(fault)
    behind = list(_behind(examination.states, examination.in_sync))
    yield from behind
    if not (faults or behind):
        yield ok(f"all {len(examination.states)} topics are as expected")


def _behind(states: Sequence[TopicState], needed: int) -> Iterator[CheckResult]:
    """Report each topic's worst partition, if that partition has a replica out of sync."""
    for state in states:
        worst = min(state.partitions, key=lambda each: each.in_sync - each.replicas)
        what = (
            f"topic {state.name}, partition {worst.number}: {worst.in_sync} of {worst.replicas} "
            "replicas are in sync"
        )
        if worst.in_sync < needed:
            yield problem(
                f"{what}, but Kafka acknowledges no record in this partition with fewer than "
                f"{needed} in-sync replicas",
                "start the missing brokers again, with their disks",
            )
        elif worst.in_sync < worst.replicas:
            yield warning(what, "start the missing broker again, or wait until it has caught up")
