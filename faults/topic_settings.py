"""Injects faults by changing topics' settings, as an operator may do.

A changed setting lasts until its ``with`` block ends. After that, each topic has its former
settings again. No setting here makes Kafka delete a record of the run.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, for_code

from faults.kinds import Injected
from faults.stage import FaultStage, StageError
from ledger.topics import TABLES, all_topics, changelog_name
from runtime.kafka.topics import TopicSettings

T = TypeVar("T")
_Settings = Mapping[str, dict[str, str]]

# With this number, Kafka marks a setting that is set on the topic itself.
_OF_THE_TOPIC: Final = 1
_ANSWERED_WITHIN_S: Final = 60.0
_ASK_AGAIN_S: Final = 0.5
_CODECS: Final = ("gzip", "snappy", "lz4", "zstd")
# A record of the simulation takes one or two kilobytes.
_LOW_LIMIT_BYTES: Final = 8192
# The ledger's topics must not have these settings. The settings delete no record of a run, because
# records are younger than an hour, and segments are too small to be closed and compacted.
_OF_SOURCES: Final = (
    ("retention.ms", "3600000"),
    ("message.timestamp.type", "LogAppendTime"),
    ("cleanup.policy", "compact"),
    ("unclean.leader.election.enable", "true"),
)
_OF_CHANGELOGS: Final = (
    ("retention.ms", "3600000"),
    ("cleanup.policy", "delete"),
    ("delete.retention.ms", "1000"),
    ("unclean.leader.election.enable", "true"),
)


@contextmanager
def change_compression(stage: FaultStage, chance: random.Random) -> Iterator[Injected]:
    """Have the brokers compress sources, changelogs or outputs with a different codec."""
    names, group = stage.settings.names, stage.settings.group_id
    topics_of = {
        "sources": names.hops,
        "changelogs": tuple(changelog_name(group, table) for table in TABLES),
        "outputs": (names.orders, names.entries, names.rejected),
    }
    hit, topics = chance.choice(list(topics_of.items()))
    codec = chance.choice(_CODECS)
    with changed(stage, {topic: {"compression.type": codec} for topic in topics}):
        yield Injected((hit,), chance.uniform(1.0, 6.0))


@contextmanager
def change_settings(stage: FaultStage, chance: random.Random) -> Iterator[Injected]:
    """Give the log of record or a changelog a forbidden setting; ingress may then answer 503."""
    names = stage.settings.names
    if chance.random() < 0.5:  # noqa: PLR2004 - one or the other
        topic, (name, value) = names.webhooks, chance.choice(_OF_SOURCES)
    else:
        topic = changelog_name(stage.settings.group_id, chance.choice(TABLES))
        name, value = chance.choice(_OF_CHANGELOGS)
    with changed(stage, {topic: {name: value}}):
        yield Injected((name,), chance.uniform(1.0, 8.0))


@contextmanager
def lower_max_message_bytes(stage: FaultStage, chance: random.Random) -> Iterator[Injected]:
    """Have the brokers refuse large batches for a topic; each single record still fits."""
    names, group = stage.settings.names, stage.settings.group_id
    topics = [names.webhooks, names.events, names.entries, changelog_name(group, "payments")]
    topic = chance.choice(topics)
    with changed(stage, {topic: {"max.message.bytes": str(_LOW_LIMIT_BYTES)}}):
        yield Injected((topic,), chance.uniform(1.0, 6.0))


@contextmanager
def require_more_replicas(stage: FaultStage, chance: random.Random) -> Iterator[Injected]:
    """Require every replica while a broker is down, so that no write is acknowledged."""
    topics = [topic.name for topic in all_topics(stage.settings.names, stage.settings.group_id)]
    broker = chance.choice(stage.brokers)
    every = str(len(stage.brokers))
    with changed(stage, {topic: {"min.insync.replicas": every} for topic in topics}):
        broker.kill()
        yield Injected((broker.folder.name,), chance.uniform(2.0, 15.0))
        stage.start_again(broker)


@contextmanager
def changed(stage: FaultStage, changes: Mapping[str, Mapping[str, str]]) -> Iterator[None]:
    """Change the settings of topics until the ``with`` block ends."""
    before = administer(stage.settings, lambda admin: _own(admin, changes))
    # Kafka resets every setting that the request does not name.
    after = {topic: before[topic] | dict(values) for topic, values in changes.items()}
    administer(stage.settings, lambda admin: _replace(admin, after))
    try:
        yield
    finally:
        administer(stage.settings, lambda admin: _replace(admin, before))


def administer(settings: TopicSettings, ask: Callable[[AIOKafkaAdminClient], Awaitable[T]]) -> T:
    """Call ``ask`` with an admin client; repeat the call until a broker answers."""

    async def once() -> T:
        admin = AIOKafkaAdminClient(**settings.client_options())
        await admin.start()
        try:
            return await ask(admin)
        finally:
            await admin.close()

    return answered(once)


def answered(ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Call ``ask`` until Kafka answers without an error; a broker may just have been restarted."""
    deadline = time.monotonic() + _ANSWERED_WITHIN_S
    while True:
        try:
            return asyncio.run(ask())
        except (KafkaError, OSError, TimeoutError) as error:
            if time.monotonic() > deadline:
                raise StageError(
                    f"Kafka refused the request for {_ANSWERED_WITHIN_S:.0f} s: {error!r}"
                ) from error
            time.sleep(_ASK_AGAIN_S)


async def _own(admin: AIOKafkaAdminClient, topics: Iterable[str]) -> _Settings:
    """Return the settings that are set on the topics themselves."""
    asked = [ConfigResource(ConfigResourceType.TOPIC, topic) for topic in topics]
    return {
        name: {key: text for key, text, _, source, *_ in entries if source == _OF_THE_TOPIC}
        for answer in await admin.describe_configs(asked)
        for *_, name, entries in answer.resources
    }


async def _replace(admin: AIOKafkaAdminClient, settings: _Settings) -> None:
    topic = ConfigResourceType.TOPIC
    wanted = [ConfigResource(topic, name, dict(values)) for name, values in settings.items()]
    for answer in await admin.alter_configs(wanted):
        for code, message, _, name in answer.resources:
            if code:
                raise for_code(code)(f"{name}: {message}")
