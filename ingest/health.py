"""``GET /healthz`` and ``GET /readyz``: the program is alive; it could keep a delivery now.

In: the log. Out: 200, or 503 with the reason. Never: more than one question to Kafka at a time, or
more than one a second, however often it is asked here.
"""

import asyncio
import time
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from ingest.answers import problem
from ingest.log import Log

_ALIVE: Final = Response(b'{"status":"alive"}', media_type="application/json")
_READY: Final = Response(b'{"status":"ready"}', media_type="application/json")

# How long an answer of Kafka's may be repeated.
_FRESH_S: Final = 1.0


async def alive(_request: Request) -> Response:
    """Answer that the program runs, whatever Kafka does."""
    return _ALIVE


class Readiness:
    """Answers whether a delivery could be kept now."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._asking = asyncio.Lock()
        self._asked_at_s = float("-inf")
        self._trouble: str | None = None

    async def ready(self, _request: Request) -> Response:
        """Answer 200 only if Kafka says so itself."""
        trouble = await self.trouble()
        return problem("log_unavailable", trouble) if trouble else _READY

    async def trouble(self) -> str | None:
        """Return why no delivery could be kept; ``None`` if one could, by Kafka's own word."""
        async with self._asking:
            if time.monotonic() - self._asked_at_s > _FRESH_S:
                self._trouble = await self._log.trouble()
                self._asked_at_s = time.monotonic()
        return self._trouble
