"""Runs the attacked ingress as a process, measures the process's memory, and opens connections.

Input: settings. Output: a running ingress, and its peak memory. Invariant: an attack writes its
bytes to the socket directly, because a client library could correct them.
"""

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Final

PROJECT: Final = Path(__file__).parents[2]
SERVE: Final = [sys.executable, "-m", "cli", "ingest"]
_READ_BYTES: Final = 64 * 1024


class Target:
    """A running ingress."""

    def __init__(self, port: int, process: subprocess.Popen[bytes], log_file: Path) -> None:
        self.port = port
        self.process = process
        self.log_file = log_file

    def memory_mb(self, line: str = "VmRSS") -> int:
        """Return the current resident memory, or its peak if ``line`` is ``VmHWM``."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (found,) = [text for text in status.splitlines() if text.startswith(f"{line}:")]
        return int(found.split()[1]) // 1024

    def open_sockets(self) -> int:
        """Count the open files of the process, which include its sockets."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    async def exchange(
        self, raw: bytes, *, half_close: bool = False, within_s: float = 30
    ) -> bytes:
        """Send bytes on a new connection; return all bytes that the server sends.

        If the server keeps the connection open, close it shortly after the server's last bytes.
        """
        reader, writer = await connect(self.port)
        received = bytearray()
        try:
            writer.write(raw)
            with contextlib.suppress(OSError):
                if half_close:
                    writer.write_eof()
                async with asyncio.timeout(within_s):
                    while chunk := await _read(reader, quiet_s=0.05 if received else within_s):
                        received += chunk
        finally:
            writer.transport.abort()
        return bytes(received)


async def connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a connection that sends bytes unchanged."""
    return await asyncio.open_connection("127.0.0.1", port)


async def _read(reader: asyncio.StreamReader, quiet_s: float) -> bytes:
    try:
        async with asyncio.timeout(quiet_s):
            return await reader.read(_READ_BYTES)
    except TimeoutError:
        return b""


@contextlib.asynccontextmanager
async def running(env: Mapping[str, str], log_file: Path) -> AsyncIterator[Target]:
    """Run ingress with the environment ``env`` until the ``with`` block ends."""
    with log_file.open("wb") as log:
        process = subprocess.Popen(  # noqa: ASYNC220 - takes a moment
            SERVE, cwd=PROJECT, env=os.environ | env, stderr=log
        )
    target = Target(int(env["LEDGER_INGEST_PORT"]), process, log_file)
    try:
        async with asyncio.timeout(60):
            while not await _ready(target):
                assert process.poll() is None, "ingress ended; its log says why"
                await asyncio.sleep(0.05)
        yield target
    finally:
        process.kill()
        await asyncio.to_thread(process.wait)


async def _ready(target: Target) -> bool:
    try:
        request = b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        answer = await target.exchange(request)
    except OSError:
        return False
    return answer.startswith(b"HTTP/1.1 200")
