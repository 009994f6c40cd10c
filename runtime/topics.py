"""Create the topics, or check those that are there.

In: settings and the topics that the ledger describes. Out: which were created, which were found.
Never: a change to an existing topic: one that is wrong is an error that says what to do, because a
partition count is for life and a shorter retention loses the log of record.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import msgspec
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    KafkaError,
    TopicAlreadyExistsError,
    for_code,
)

from ledger.topics import Topic, TopicNames, all_topics
from runtime.client_log import ClientLog
from runtime.kafka import KafkaSettings
from runtime.settings import setting

_VISIBLE_WITHIN_S: Final = 15.0


class TopicsError(RuntimeError):
    """A topic can't be created, or is not as the ledger needs it; the message says what to do."""


class TopicSettings(KafkaSettings, frozen=True, kw_only=True):
    """How topics are created; ``partitions`` is for life."""

    app_id: Annotated[
        str,
        setting(
            "consumer group of the workers, and the first part of the changelogs' names",
            pattern=r"^[a-zA-Z0-9._-]{1,100}$",
        ),
    ] = "plexy-ledger"
    partitions: Annotated[
        int, setting("partitions of every topic; can't be changed later", ge=1, le=1000)
    ] = 4
    replication_factor: Annotated[
        int, setting("replicas of every topic; 3 in production", ge=1, le=10)
    ] = 1
    min_insync_replicas: Annotated[
        int, setting("replicas that must have a record before it is kept", ge=1, le=10)
    ] = 1


class TopicsReport(msgspec.Struct, frozen=True):
    """The names of the topics that were created, and of those that were there and are right."""

    created: list[str]
    found: list[str]


async def ensure_topics(settings: TopicSettings, *, create: bool = True) -> TopicsReport:
    """Create what is missing, check what is there; ``TopicsError`` if a topic is not as needed."""
    wanted = all_topics(TopicNames(settings.topic_prefix), settings.app_id)
    admin = AIOKafkaAdminClient(**settings.client_options(), request_timeout_ms=15_000)
    with ClientLog() as said:
        try:
            await admin.start()
        except KafkaError as error:
            raise TopicsError(unreachable(settings, error, said.last_line)) from error
    try:
        return await _ensure(admin, settings, wanted, create=create)
    finally:
        await admin.close()


def unreachable(settings: KafkaSettings, error: Exception, said: str = "") -> str:
    """Say that Kafka does not answer, where it was looked for, and what to do."""
    brokers = ",".join(settings.bootstrap_servers)
    why = f"{type(error).__name__}: {said}" if said else type(error).__name__
    return (
        f"Kafka does not answer at {brokers} ({why}); start it "
        "(`plexy-ledger kafka` runs an embedded one) or set LEDGER_KAFKA_BOOTSTRAP to a running one"
    )


async def _ensure(
    admin: AIOKafkaAdminClient, settings: TopicSettings, wanted: Sequence[Topic], *, create: bool
) -> TopicsReport:
    existing = set(await admin.list_topics())
    missing = [topic for topic in wanted if topic.name not in existing]
    if missing and not create:
        names = ", ".join(topic.name for topic in missing)
        raise TopicsError(f"missing topics: {names}; create them with `plexy-ledger topics`")
    for topic in missing:
        await _create(admin, settings, topic)
    if missing:
        await _wait_until_visible(admin, {topic.name for topic in wanted})
    await _check(admin, settings, wanted)
    await _wait_for_coordinator(admin, settings.app_id)
    created = {topic.name for topic in missing}
    return TopicsReport(
        created=[topic.name for topic in wanted if topic.name in created],
        found=[topic.name for topic in wanted if topic.name not in created],
    )


async def _create(admin: AIOKafkaAdminClient, settings: TopicSettings, topic: Topic) -> None:
    config = topic.config | {"min.insync.replicas": str(settings.min_insync_replicas)}
    new = NewTopic(
        topic.name, settings.partitions, settings.replication_factor, topic_configs=config
    )
    response = await admin.create_topics([new])
    for name, code, *rest in response.topic_errors:
        # Another worker that starts at the same time may have been faster.
        if code and code != TopicAlreadyExistsError.errno:
            reason = (rest[0] if rest else None) or for_code(code).__name__
            raise TopicsError(
                f"topic {name} can't be created: {reason} (replication factor "
                f"{settings.replication_factor}: LEDGER_REPLICATION_FACTOR)"
            )


async def _wait_until_visible(admin: AIOKafkaAdminClient, names: set[str]) -> None:
    deadline = time.monotonic() + _VISIBLE_WITHIN_S
    while not names <= set(await admin.list_topics()):
        if time.monotonic() > deadline:
            raise TopicsError(f"created topics are not visible after {_VISIBLE_WITHIN_S:.0f} s")
        await asyncio.sleep(0.05)


async def _wait_for_coordinator(admin: AIOKafkaAdminClient, group: str) -> None:
    """Wait for the group's coordinator, which a new cluster makes only when it is asked for."""
    deadline = time.monotonic() + _VISIBLE_WITHIN_S
    while True:
        try:
            await admin.find_coordinator(group)
        except GroupCoordinatorNotAvailableError as error:
            if time.monotonic() > deadline:
                raise TopicsError(f"no broker coordinates the group {group}: {error}") from error
            await asyncio.sleep(0.05)
        else:
            return


async def _check(
    admin: AIOKafkaAdminClient, settings: TopicSettings, wanted: Sequence[Topic]
) -> None:
    for found in await admin.describe_topics([topic.name for topic in wanted]):
        _check_partitions(settings, found)
    configs = await _configs(admin, [topic.name for topic in wanted])
    for topic in wanted:
        for key in ("cleanup.policy", "retention.ms"):
            _check_config(topic.name, key, topic.config[key], configs.get((topic.name, key)))
        key, least = "min.insync.replicas", settings.min_insync_replicas
        got = configs.get((topic.name, key))
        if int(got or 0) < least:
            _check_config(topic.name, key, str(least), got)


def _check_partitions(settings: TopicSettings, found: Mapping[str, Any]) -> None:
    name, partitions = found["topic"], found["partitions"]
    if len(partitions) != settings.partitions:
        raise TopicsError(
            f"topic {name} has {len(partitions)} partitions, expected {settings.partitions}: set "
            f"LEDGER_PARTITIONS={len(partitions)}, or start a new ledger with another "
            "LEDGER_TOPIC_PREFIX and LEDGER_APP_ID"
        )
    replicas = min(len(partition["replicas"]) for partition in partitions)
    if replicas < settings.replication_factor:
        raise TopicsError(
            f"topic {name} has {replicas} replicas, expected {settings.replication_factor}: add "
            "some with `kafka-reassign-partitions.sh`, or set "
            f"LEDGER_REPLICATION_FACTOR={replicas}"
        )


def _check_config(name: str, key: str, expected: str, got: str | None) -> None:
    if got != expected:
        raise TopicsError(
            f"topic {name} has {key}={got}, expected {expected}: change it with "
            f"`kafka-configs.sh --alter --topic {name} --add-config {key}={expected}`"
        )


async def _configs(
    admin: AIOKafkaAdminClient, names: Sequence[str]
) -> dict[tuple[str, str], str | None]:
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    configs = {}
    for response in await admin.describe_configs(resources):
        for _code, _message, _kind, name, entries in response.resources:
            for key, value, *_ in entries:
                configs[name, key] = value
    return configs
