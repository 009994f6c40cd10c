"""Log lines of what happens thousands of times a second, such as a delivery.

In: an event and its fields, from the event loop's thread. Out: the line that structlog would write,
in JSON at a tenth of the time, with characters beyond ASCII as they are: rendered by msgspec, and
written together at the end of a turn of the loop. Never: a line that is left behind, or one of up
to ``PIPE_BUF`` bytes (4 KiB on Linux) that is torn by those of other processes.

Where lines are for people, or nobody has called ``runtime.logs.configure``, structlog writes them.
"""

import asyncio
import atexit
import select
import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, BinaryIO, Final

import msgspec
import structlog

# So much is written to a pipe as one piece, whoever else writes to it: no line is torn.
_MOST_BYTES: Final = select.PIPE_BUF

_ENCODER: Final = msgspec.json.Encoder()


class FrequentLog:
    """What is told often, at level ``info``."""

    def info(self, event: str, **fields: Any) -> None:
        """Tell of an event."""
        if _buffer is None:
            structlog.get_logger().info(event, **fields)
        else:
            _buffer.add(_render(event, fields))


class _Buffer:
    """Lines of this turn of the event loop."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._lines = bytearray()

    def add(self, line: bytes) -> None:
        """Take a line; without an event loop it is written at once."""
        if len(self._lines) + len(line) > _MOST_BYTES:
            self.flush()
        first = not self._lines
        self._lines += line
        if first:
            try:
                asyncio.get_running_loop().call_soon(self.flush)
            except RuntimeError:
                self.flush()

    def flush(self) -> None:
        """Write what is there."""
        if not self._lines:
            return
        # Forgotten first: a stream that is closed must not make the buffer grow.
        lines, self._lines = self._lines, bytearray()
        self._stream.write(lines)
        self._stream.flush()


_buffer: _Buffer | None = None


def write_to(stream: BinaryIO | None) -> None:
    """Write JSON lines to this stream from now on; ``None`` leaves them to structlog."""
    global _buffer  # noqa: PLW0603 - as structlog's own configuration, one for the process
    if _buffer is not None:
        atexit.unregister(_buffer.flush)
    _buffer = None if stream is None else _Buffer(stream)
    if _buffer is not None:
        atexit.register(_buffer.flush)


def _render(event: str, fields: dict[str, Any]) -> bytes:
    """Return the line as structlog's ``JSONRenderer`` writes it, spaces included."""
    second, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    timestamp = f"{_date_and_time(second)}.{nanoseconds // 1000:06d}Z"
    line = fields | {"event": event, "level": "info", "timestamp": timestamp}
    return msgspec.json.format(_ENCODER.encode(line), indent=0) + b"\n"


@lru_cache(maxsize=1)
def _date_and_time(second: int) -> str:
    """Return a Unix time as ISO 8601 has it; the lines of a second share it."""
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
