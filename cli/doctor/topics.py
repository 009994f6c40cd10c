"""The topics: what is missing, what is not as the ledger needs it, and which replicas are behind.

In: the settings. Out: findings. Never: a topic that is made, or changed.
"""

import asyncio
from collections.abc import Iterator, Sequence

from aiokafka.client import AIOKafkaClient

from cli.doctor.findings import Finding, Patient, ok, problem, warning
from ingest.producer import Condition, Trouble, look_at_log
from runtime.kafka.connection import KafkaSettings
from runtime.kafka.topic_states import TopicState
from runtime.kafka.topics import (
    Examination,
    TopicsError,
    TopicSettings,
    examine_topics,
)


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
        yield problem(str(error), "give the user the rights that docs/kafka.md lists")


def _all(patient: Patient) -> Iterator[Finding]:
    settings = TopicSettings.from_environment(patient.environment)
    yield from judge(asyncio.run(examine_topics(settings)), settings.min_insync_replicas)


def _shared(patient: Patient) -> Iterator[Finding]:
    """Look at what ingress appends to, as ingress does; more it has no right to see."""
    settings = KafkaSettings.from_environment(patient.environment)
    seen = asyncio.run(_look_as_ingress(settings))
    if isinstance(seen, Trouble):
        yield problem(seen.what, seen.remedy or "look at the brokers")
        return
    for fault in seen.faults:
        yield problem(fault.what, fault.remedy)
    if not seen.faults:
        yield ok(f"{', '.join(settings.names.shared)} are as they must be")


async def _look_as_ingress(settings: KafkaSettings) -> Condition | Trouble:
    client = AIOKafkaClient(**settings.client_options())
    try:
        await client.bootstrap()
        return await look_at_log(client, settings.names)
    finally:
        await client.close()


def _missing(names: Sequence[str]) -> Finding:
    return problem(
        f"topics are missing: {', '.join(names)}", "create them with `plexy-ledger topics`"
    )


def judge(examination: Examination, min_insync_replicas: int) -> Iterator[Finding]:
    """Say what of an examination has to be put right."""
    if examination.lost:
        yield problem(
            f"topics that were there are lost: {', '.join(examination.lost)}",
            "what follows from the log is folded anew by `plexy-ledger rebuild`; the log itself "
            "comes from a backup (`plexy-ledger import-log`)",
        )
    never = [name for name in examination.missing if name not in examination.lost]
    if never:
        yield _missing(never)
    faults = (*examination.miscounted, *examination.faults, *examination.deletions)
    for fault in faults:
        yield problem(fault.what, fault.remedy)
    behind = list(_behind(examination.states, min_insync_replicas))
    yield from behind
    if not (examination.missing or faults or behind):
        yield ok(f"all {len(examination.states)} topics are as they must be")


def _behind(states: Sequence[TopicState], min_insync_replicas: int) -> Iterator[Finding]:
    """Say of each topic how its worst partition is replicated, if not wholly."""
    for state in states:
        worst = min(state.partitions, key=lambda each: each.in_sync - each.replicas)
        what = (
            f"topic {state.name}, partition {worst.number}: {worst.in_sync} of {worst.replicas} "
            "replicas are in sync"
        )
        if worst.in_sync < max(1, min_insync_replicas):
            yield problem(
                f"{what}, and nothing is kept there with fewer than {max(1, min_insync_replicas)}",
                "bring the brokers that are away back, with their disks",
            )
        elif worst.in_sync < worst.replicas:
            yield warning(
                what, "bring the broker that is away back, or wait until it has caught up"
            )
