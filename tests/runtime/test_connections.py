"""A request on a connection that the broker has closed is an error of Kafka's, on either loop."""

import asyncio
import socket
import struct
from collections.abc import Callable

import pytest
import uvloop
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.metadata import MetadataRequest

from runtime import kafka  # noqa: F401 - it heeds the closing
from tests.fakes import until

ATTEMPTS = 20


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """End a connection as a broker's death does, once something has come."""
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
            # The server has closed, and nobody has told aiokafka.
            with pytest.raises(KafkaConnectionError):
                connection.send(MetadataRequest([]))
            assert not connection.connected()


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_request_on_a_connection_that_is_closing_is_a_lost_connection(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(ask_until_it_is_refused())
