"""Proxies TCP between the programs and Kafka, to simulate a bad network.

The proxy can delay bytes, or hold them back. As with TCP, no byte is changed, and no byte is left
out in the middle of a connection.
"""

import asyncio
import contextlib
import threading
from concurrent.futures import Future
from enum import Enum
from typing import Final, Self

_READ_BYTES: Final = 64 * 1024


class Network(Enum):
    """The state of the network."""

    GOOD = "good"
    SLOW = "slow"
    """Each block of bytes is delayed."""
    SILENT = "silent"
    """Connections are accepted and stay open, but no byte passes in either direction."""
    REFUSING = "refusing"
    """Connections are cut, and new connections are closed at once."""


class Proxy:
    """A proxy from ``port`` to ``target_port``, both on loopback; it runs on its own thread."""

    def __init__(self, port: int, target_port: int, *, slow_by_s: float = 0.15) -> None:
        self.port = port
        self._target_port = target_port
        self._slow_by_s = slow_by_s
        self._network = Network.GOOD
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._listen())
        return self

    def __exit__(self, *_exception: object) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def network(self) -> Network:
        """The current state of the network."""
        return self._network

    @network.setter
    def network(self, network: Network) -> None:
        self._call(self._change(network))

    def _call(self, coroutine: object) -> None:
        future: Future[None] = asyncio.run_coroutine_threadsafe(coroutine, self._loop)  # type: ignore[arg-type]
        future.result(timeout=10)

    async def _change(self, network: Network) -> None:
        self._network = network
        if network is Network.SILENT:
            self._flowing.clear()
        else:
            self._flowing.set()
        if network is Network.REFUSING:
            await self._cut()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def _close(self) -> None:
        self._server.close()
        await self._cut()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _cut(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            if self._network is not Network.REFUSING:
                await self._connect(reader, writer)
        except OSError:
            pass  # The broker is down, or one side hung up. The other side's connection ends too.
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._target_port)
        self._writers.add(back)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(reader, back))
                both.create_task(self._pump(there, writer))
        except* OSError:
            pass
        finally:
            self._writers.discard(back)
            back.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(_READ_BYTES):
            if self._network is Network.SLOW:
                await asyncio.sleep(self._slow_by_s)
            await self._flowing.wait()
            sink.write(data)
            await sink.drain()
        with contextlib.suppress(OSError, RuntimeError):
            sink.write_eof()
