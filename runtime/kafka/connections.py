"""Connections to a broker that has just died, or does not answer, on either event loop.

Input: aiokafka 0.14's connections. Output: the same connections, with three differences.

- A request on a connection that is closing raises ``KafkaConnectionError``, which every caller
  knows. Between the end of a socket and the moment at which aiokafka hears of it, a request may be
  written. asyncio drops it with a warning. uvloop raises ``RuntimeError``, which ends the task of
  aiokafka that asked. If that task keeps the metadata, the client waits for metadata forever.
- Nobody waits longer than ``_CLOSED_WITHIN_S`` for a connection to close. Both event loops wait
  30 s for a broker that does not answer the end of TLS, and a client waits for all its connections
  when it closes: a worker would not stop in time.
- A connection takes its TLS context and its password from their files as they are when it begins.
  aiokafka keeps for each client the ones that it was made with.
"""

from typing import Any, Final

from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError

from runtime import internals
from runtime.kafka import certificates
from runtime.kafka.credentials import Renewed

# A broker answers the end of TLS within milliseconds.
_CLOSED_WITHIN_S: Final = 1.0

internals.check()
_send = AIOKafkaConnection.send
_close = AIOKafkaConnection.close
_connect = AIOKafkaConnection.connect
# Where a connection keeps what it takes from files.
_CREDENTIALS: Final = ("_ssl_context", "_sasl_plain_password")


def heed_closing() -> None:
    """Have every connection of this process do so; doing it again changes nothing."""
    AIOKafkaConnection.send = _send_while_open
    AIOKafkaConnection.close = _close_in_time


def renew_credentials() -> None:
    """Have every connection of this process do so; doing it again changes nothing."""
    AIOKafkaConnection.connect = _connect_with_current


async def _connect_with_current(connection: AIOKafkaConnection) -> Any:
    for name in _CREDENTIALS:
        given = getattr(connection, name)
        if isinstance(given, Renewed):
            setattr(connection, name, given.current())
    reader, writer = await _connect(connection)
    certificates.note(f"{connection.host}:{connection.port}", writer.transport)
    return reader, writer


def _close_in_time(connection: AIOKafkaConnection, *why: Any, **options: Any) -> Any:
    """Close, and return a future that is done then, or when the time is over."""
    closed = _close(connection, *why, **options)
    if closed is None:
        return None
    loop = closed.get_loop()
    over = loop.create_future()

    def end(_closed: object = None) -> None:
        if not over.done():
            over.set_result(None)

    closed.add_done_callback(end)
    loop.call_later(_CLOSED_WITHIN_S, end)
    return over


def _send_while_open(connection: AIOKafkaConnection, *request: Any, **options: Any) -> Any:
    writer = connection._writer  # noqa: SLF001
    if writer is not None and writer.transport.is_closing():
        connection.close(reason=CloseReason.CONNECTION_BROKEN)
        raise KafkaConnectionError(f"Connection at {connection.host}:{connection.port} is closing")
    return _send(connection, *request, **options)
