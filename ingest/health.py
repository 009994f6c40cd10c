"""Answers ``GET /healthz`` (the program runs) and ``GET /readyz`` (a delivery could be kept now).

Input: the log. Output: 200, or 503 with the reason. Invariant: however many probes arrive, Kafka
is asked at most once a second, and never twice at the same time.
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

# An answer from Kafka is reused for this long.
_FRESH_S: Final = 1.0


async def alive(_request: Request) -> Response:
    """Answer 200 as long as the program runs, even without Kafka."""
    return _ALIVE


class ReadinessProbe:
    """Asks the log whether a delivery could be kept now."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._asking = asyncio.Lock()
        self._asked_at_s = float("-inf")
        self._trouble: str | None = None

    async def ready(self, _request: Request) -> Response:
        """Answer 200 only if Kafka itself confirms that it could keep a delivery."""
        trouble = await self.trouble()
        return problem("log_unavailable", trouble) if trouble else _READY

    @property
    def topic_faults(self) -> int:
        """The number of faults that were found when the topics were last checked."""
        return self._log.topic_faults

    async def trouble(self) -> str | None:
        """Return the reason why no delivery could be kept; ``None`` if a delivery could be kept."""
        async with self._asking:
            if time.monotonic() - self._asked_at_s > _FRESH_S:
                self._trouble = await self._log.trouble()
                self._asked_at_s = time.monotonic()
        return self._trouble
