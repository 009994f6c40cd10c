"""Connections to a broker that has just died, on uvloop.

In: aiokafka 0.14's connections. Out: the same, but that a request on one that is closing is a
``KafkaConnectionError``, which every caller knows. Never: an exception that is none of Kafka's.

Between the end of a socket and the moment at which aiokafka hears of it, a request may be written.
asyncio drops it with a warning. uvloop raises ``RuntimeError``, and that ends whatever task of
aiokafka's asked: if it is the one that keeps the metadata, a client waits for those for ever.
"""

from typing import Any

from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError

from runtime import internals

internals.check()
_send = AIOKafkaConnection.send


def heed_closing() -> None:
    """Have every connection of this process do so; doing it again changes nothing."""
    AIOKafkaConnection.send = _send_while_open


def _send_while_open(connection: AIOKafkaConnection, *request: Any, **options: Any) -> Any:
    writer = connection._writer  # noqa: SLF001
    if writer is not None and writer.transport.is_closing():
        connection.close(reason=CloseReason.CONNECTION_BROKEN)
        raise KafkaConnectionError(f"Connection at {connection.host}:{connection.port} is closing")
    return _send(connection, *request, **options)
