"""Creates, changes, describes and deletes topics, as an administrator would."""

import asyncio
from collections.abc import Mapping

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from runtime.kafka.topic_metadata import read_topics

# Kafka gives the source of each setting as a number: 1 means that the setting is set on the topic
# itself, and 4 means that it is set in the broker's configuration file.
OF_THE_TOPIC = 1


async def create(env: Mapping[str, str], name: str, partitions: int = 4, **config: str) -> None:
    """Create a topic, as a program other than the ledger might."""
    dotted = {key.replace("_", "."): value for key, value in config.items()}
    admin = AIOKafkaAdminClient(bootstrap_servers=env["LEDGER_KAFKA_BOOTSTRAP"])
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, partitions, 1, topic_configs=dotted)])
        async with asyncio.timeout(15):
            while name not in await admin.list_topics():  # noqa: ASYNC110 - no event to wait for
                await asyncio.sleep(0.05)
    finally:
        await admin.close()


async def alter(env: Mapping[str, str], *names: str, **changes: str) -> None:
    """Change these settings of topics; all their other settings keep their values."""
    admin = AIOKafkaAdminClient(bootstrap_servers=env["LEDGER_KAFKA_BOOTSTRAP"])
    await admin.start()
    try:
        asked = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
        resources = []
        for response in await admin.describe_configs(asked):
            for *_, name, entries in response.resources:
                # Kafka resets every setting that the request does not name.
                own = {key: text for key, text, _, source, *_ in entries if source == OF_THE_TOPIC}
                own |= {key.replace("_", "."): text for key, text in changes.items()}
                resources.append(ConfigResource(ConfigResourceType.TOPIC, name, own))
        for response in await admin.alter_configs(resources):
            assert [code for code, *_ in response.resources] == [0] * len(names)
    finally:
        await admin.close()


async def add_partitions(env: Mapping[str, str], topic: str, count: int) -> None:
    """Add partitions to a topic until it has ``count``; return when the broker shows them."""
    admin = AIOKafkaAdminClient(bootstrap_servers=env["LEDGER_KAFKA_BOOTSTRAP"])
    await admin.start()
    try:
        await admin.create_partitions({topic: NewPartitions(total_count=count)})
        async with asyncio.timeout(15):
            while True:
                (described,) = await admin.describe_topics([topic])
                if len(described["partitions"]) == count:
                    return
                await asyncio.sleep(0.05)
    finally:
        await admin.close()


async def describe(env: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return the settings and the number of partitions of each topic of an environment."""
    admin = AIOKafkaAdminClient(bootstrap_servers=env["LEDGER_KAFKA_BOOTSTRAP"])
    await admin.start()
    try:
        mine = [
            name
            for name in await admin.list_topics()
            if name.startswith(env["LEDGER_TOPIC_PREFIX"])
        ]
        resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in mine]
        found: dict[str, dict[str, str]] = {name: {} for name in mine}
        for response in await admin.describe_configs(resources) if mine else ():
            for _code, _message, _kind, name, entries in response.resources:
                found[name] = {key: value for key, value, *_ in entries}
        for topic in await admin.describe_topics(mine) if mine else ():
            found[topic["topic"]]["partitions"] = str(len(topic["partitions"]))
        return found
    finally:
        await admin.close()


async def ids_of(env: Mapping[str, str], *topics: str) -> list[str]:
    """Return the ids that Kafka has assigned to these topics."""
    admin = AIOKafkaAdminClient(bootstrap_servers=env["LEDGER_KAFKA_BOOTSTRAP"])
    await admin.start()
    try:
        found = await read_topics(admin._client)
        return [found[topic].topic_id for topic in topics]
    finally:
        await admin.close()


async def delete(env: Mapping[str, str], topic: str) -> None:
    """Delete a topic; return when the broker no longer has it."""
    admin = AIOKafkaAdminClient(bootstrap_servers=env["LEDGER_KAFKA_BOOTSTRAP"])
    await admin.start()
    try:
        await admin.delete_topics([topic])
        async with asyncio.timeout(15):
            while topic in await admin.list_topics():  # noqa: ASYNC110 - no event to wait for
                await asyncio.sleep(0.05)
    finally:
        await admin.close()


async def delete_records(env: Mapping[str, str], partition: TopicPartition, before: int) -> None:
    """Delete the records of a partition below an offset, as ``kafka-delete-records.sh`` does."""
    admin = AIOKafkaAdminClient(bootstrap_servers=env["LEDGER_KAFKA_BOOTSTRAP"])
    await admin.start()
    try:
        await admin.delete_records({partition: RecordsToDelete(before)})
    finally:
        await admin.close()
