"""The topics: what is missing, what is not as the ledger needs it, and which replicas are behind.

In: the settings. Out: findings. Never: a topic that is made, or changed.
"""

import asyncio
from collections.abc import Iterator, Sequence

from cli.doctor.findings import Finding, Patient, ok, problem, warning
from runtime.kafka.connection import KafkaSettings
from runtime.kafka.topic_looks import Examination, TopicsError
from runtime.kafka.topic_states import TopicState
from runtime.kafka.topics import TopicSettings, examine_log, examine_topics


def check_topics(patient: Patient) -> Iterator[Finding]:
    """Look at every topic of the ledger, if Kafka has answered."""
    if not patient.readers("LEDGER_TOPIC_PREFIX"):
        return
    if patient.cluster is None:
        yield warning("the topics were not looked at", "bring Kafka up first, then look again")
        return
    try:
        yield from _all(patient) if patient.readers("LEDGER_PARTITIONS") else _shared(patient)
    except TopicsError as error:
        yield problem(error.fault.what, error.fault.remedy)


def _all(patient: Patient) -> Iterator[Finding]:
    settings = TopicSettings.from_environment(patient.environment)
    yield from judge(asyncio.run(examine_topics(settings)))


def _shared(patient: Patient) -> Iterator[Finding]:
    """Look at what ingress appends to, as ingress does; more it has no right to see."""
    settings = KafkaSettings.from_environment(patient.environment)
    yield from judge(asyncio.run(examine_log(settings)))


def judge(examination: Examination) -> Iterator[Finding]:
    """Say what of an examination has to be put right."""
    faults = (*examination.fatal, *examination.faults, *examination.deletions)
    for fault in faults:
        yield problem(fault.what, fault.remedy)
    behind = list(_behind(examination.states, examination.in_sync))
    yield from behind
    if not (faults or behind):
        yield ok(f"all {len(examination.states)} topics are as expected")


def _behind(states: Sequence[TopicState], needed: int) -> Iterator[Finding]:
    """Say of each topic how its worst partition is replicated, if not wholly."""
    for state in states:
        worst = min(state.partitions, key=lambda each: each.in_sync - each.replicas)
        what = (
            f"topic {state.name}, partition {worst.number}: {worst.in_sync} of {worst.replicas} "
            "replicas are in sync"
        )
        if worst.in_sync < needed:
            yield problem(
                f"{what}, and nothing is kept there with fewer than {needed}",
                "bring the brokers that are away back, with their disks",
            )
        elif worst.in_sync < worst.replicas:
            yield warning(
                what, "bring the broker that is away back, or wait until it has caught up"
            )
