"""A connection closes even if the broker has already closed it, or ignores the end of TLS."""

import asyncio
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import trustme
import uvloop
from aiokafka.conn import AIOKafkaConnection
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.metadata import MetadataRequest

from runtime.kafka import connection as settings  # noqa: F401 - it corrects aiokafka's connections
from tests.fakes import until

ATTEMPTS = 20


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reset a connection after its first byte, as a broker that exits does."""
    await reader.read(1)
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


async def ask_until_it_is_refused() -> None:
    server = await asyncio.start_server(reset, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        for _ in range(ATTEMPTS):
            connection = AIOKafkaConnection("127.0.0.1", port)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            connection._reader, connection._writer = reader, writer
            connection._versions = {3: (0, 5)}
            connection._read_task = asyncio.create_task(asyncio.sleep(0))
            writer.write(b"x")
            await until(writer.transport.is_closing)
            # The server has closed the connection, but aiokafka has not noticed yet.
            with pytest.raises(KafkaConnectionError):
                connection.send(MetadataRequest([]))
            assert not connection.connected()


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_request_on_a_closing_connection_raises_a_connection_error(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(ask_until_it_is_refused())


@contextmanager
def never_reads(authority: trustme.CA) -> Iterator[int]:
    """Run a TLS server that reads nothing after the handshake, and yield its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    done = threading.Event()

    def serve(listener: socket.socket) -> None:
        accepted, _ = listener.accept()
        with context.wrap_socket(accepted, server_side=True):
            done.wait(60)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            done.set()
            thread.join()


async def close_a_connection(port: int, context: ssl.SSLContext) -> None:
    connection = AIOKafkaConnection("127.0.0.1", port, security_protocol="SSL", ssl_context=context)

    async def ask_nothing() -> None:
        """Skip the request for the broker's versions, which the server would never answer."""

    connection._do_version_lookup = ask_nothing
    await connection.connect()
    writer = connection._writer
    # Without the project's own time limit, the close would take 30 s.
    async with asyncio.timeout(10):
        await connection.close()
    writer.transport.abort()
    await writer.wait_closed()


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_connection_closes_within_the_limit_if_the_broker_ignores_the_end_of_tls(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with never_reads(authority) as port, asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(close_a_connection(port, context))


async def test_a_consumer_closes_while_a_failed_fetch_waits_for_its_retry():
    fetching = Fetcher.__new__(Fetcher)
    fetching._fetch_waiters = set()
    fetching._fetch_task, retry = (asyncio.create_task(asyncio.sleep(60)) for _ in range(2))
    fetching._pending_tasks = {retry}
    await asyncio.sleep(0)
    await fetching.close()
    assert retry.cancelled()
