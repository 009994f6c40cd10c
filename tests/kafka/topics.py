"""The topics of a ledger as an administrator makes, looks at and deletes them."""

import asyncio
from collections.abc import Mapping

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType


async def create(env: Mapping[str, str], name: str, partitions: int = 4, **config: str) -> None:
    """Create a topic as somebody else might have."""
    dotted = {key.replace("_", "."): value for key, value in config.items()}
    admin = AIOKafkaAdminClient(bootstrap_servers=env["LEDGER_KAFKA_BOOTSTRAP"])
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, partitions, 1, topic_configs=dotted)])
        async with asyncio.timeout(15):
            while name not in await admin.list_topics():  # noqa: ASYNC110 - the broker tells nobody
                await asyncio.sleep(0.05)
    finally:
        await admin.close()


async def describe(env: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return the topics of an environment: their configuration, and how many partitions."""
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


async def delete(env: Mapping[str, str], topic: str) -> None:
    """Delete a topic; return when the broker has it no more."""
    admin = AIOKafkaAdminClient(bootstrap_servers=env["LEDGER_KAFKA_BOOTSTRAP"])
    await admin.start()
    try:
        await admin.delete_topics([topic])
        async with asyncio.timeout(15):
            while topic in await admin.list_topics():  # noqa: ASYNC110 - the broker tells nobody
                await asyncio.sleep(0.05)
    finally:
        await admin.close()
