"""Checks that Kafka keeps the identities of the workers' writers for long enough.

Input: the brokers' settings. Output: their shortest ``transactional.id.expiration.ms``, or an error
if that time is too short or unknown.

If no worker asks for an identity within that time, Kafka forgets the identity. The next worker that
asks for it gets a new producer id. Then no broker refuses the former worker's records, because
brokers compare epochs only within one producer id. So workers ask for their identities again before
that time is over; see ``processors.engine.writers``.
"""

import asyncio
from typing import Final

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError

from runtime.fault import Fault
from runtime.kafka.administration import answer
from runtime.kafka.topic_looks import TopicsError

EXPIRATION: Final = "transactional.id.expiration.ms"

LEAST_EXPIRATION_MS: Final = 6 * 3600 * 1000
"""The shortest expiration that workers accept.

A worker asks every hour. The other five hours allow for times in which workers hang, or in which
all workers are down.
"""

# A broker that hangs must not prevent a worker's start.
_ANSWERED_WITHIN_S: Final = 5.0

REMEDY: Final = (
    f"remove `{EXPIRATION}` from the brokers' settings (Kafka's default is a week), or set it to "
    f"{LEAST_EXPIRATION_MS} or more"
)


class ExpirationError(RuntimeError):
    """Kafka forgets identities too early; the fault names the setting and the remedy."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        super().__init__(str(fault))


async def require_expiration(admin: AIOKafkaAdminClient) -> int:
    """Return the brokers' shortest expiration, in milliseconds.

    Raise ``ExpirationError`` if the expiration is too short, and ``TopicsError`` if no broker
    reports the expiration. A broker reports the setting only to users who may read the setting.
    """
    found = await _expiration_ms(admin)
    if found is None:
        raise TopicsError(
            Fault(
                f"no broker shows {EXPIRATION} to this user, expected at least "
                f"{LEAST_EXPIRATION_MS}",
                "give this user DescribeConfigs on the cluster (docs/kafka.md has the rights)",
            )
        )
    if found < LEAST_EXPIRATION_MS:
        raise ExpirationError(
            Fault(
                f"the brokers have {EXPIRATION}={found}, expected at least {LEAST_EXPIRATION_MS}. "
                "Kafka would forget which worker may write a partition's outputs, and a former "
                "worker could write after its successor",
                REMEDY,
            )
        )
    return found


async def _expiration_ms(admin: AIOKafkaAdminClient) -> int | None:
    cluster = await answer(admin.describe_cluster, "the cluster can't be described")
    nodes = [broker["node_id"] for broker in cluster["brokers"]]
    reported = await asyncio.gather(*(_reported_by(admin, node) for node in nodes))
    return min((each for each in reported if each is not None), default=None)


async def _reported_by(admin: AIOKafkaAdminClient, node: int) -> int | None:
    broker = ConfigResource(ConfigResourceType.BROKER, str(node), {EXPIRATION: None})
    try:
        async with asyncio.timeout(_ANSWERED_WITHIN_S):
            (response,) = await admin.describe_configs([broker])
    except (KafkaError, TimeoutError):
        return None
    for _code, _message, _kind, _name, entries in response.resources:
        for key, value, *_ in entries:
            if key == EXPIRATION and value is not None:
                return int(value)
    # The user has no right to read the setting.
    return None
