"""How long Kafka remembers the identities under which workers write.

Input: Kafka's settings. Output: the brokers' shortest ``transactional.id.expiration.ms``, or an
error for one that cannot work.

An identity that nobody asks for within that time is forgotten, and the next worker that asks gets
another producer id. No broker refuses the former worker's records then: the brokers compare epochs
of the same producer id alone. So workers ask again before that time is over, see
``processors.engine.writers``.
"""

import asyncio
from typing import Final

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError

from runtime.kafka.topic_states import Fault
from runtime.kafka.topics import answer

EXPIRATION: Final = "transactional.id.expiration.ms"

LEAST_EXPIRATION_MS: Final = 6 * 3600 * 1000
"""The shortest expiration that workers take.

A worker asks each hour. The other five hours are for workers that stand still, or are all away.
"""

# One broker that stands still must not keep a worker from its start.
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


async def require_expiration(admin: AIOKafkaAdminClient) -> int | None:
    """Return the shortest expiration of any broker, in milliseconds; ``None`` if none says it.

    The user may lack the right to read it. ``ExpirationError`` if it is too short.
    """
    found = await _expiration_ms(admin)
    if found is not None and found < LEAST_EXPIRATION_MS:
        raise ExpirationError(
            Fault(
                f"the brokers have {EXPIRATION}={found}, expected at least {LEAST_EXPIRATION_MS}. "
                "Kafka would forget who may write what follows from a partition, and a former "
                "worker could write after its successor",
                REMEDY,
            )
        )
    return found


async def _expiration_ms(admin: AIOKafkaAdminClient) -> int | None:
    cluster = await answer(admin.describe_cluster, "the cluster can't be described")
    nodes = [broker["node_id"] for broker in cluster["brokers"]]
    said = await asyncio.gather(*(_said_by(admin, node) for node in nodes))
    return min((each for each in said if each is not None), default=None)


async def _said_by(admin: AIOKafkaAdminClient, node: int) -> int | None:
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
    # The user may not read it.
    return None
