"""Honest deliveries, as a proxy in front sends them: what they meet while others attack.

In: a target. Out: how many were answered 200, and how long each took. A kept connection that the
server has closed meanwhile is opened anew, once, as any proxy does.
"""

import asyncio
import json
import time
from dataclasses import dataclass, field
from random import Random
from typing import Self

from ledger.signature import sign
from tests.fuzz.answers import answers_in
from tests.fuzz.inputs import an_event
from tests.fuzz.target import Target
from tests.ingest.conftest import PATH, SECRET

_PAUSE_S = 0.02


@dataclass
class Honest:
    """A sender with a kept connection and one that opens one for each delivery, by turns."""

    target: Target
    took_s: list[float] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    _task: asyncio.Task[None] | None = None
    _kept: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._send())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task
        self._task.cancel()
        await asyncio.wait([self._task])
        if self._kept:
            self._kept[1].transport.abort()
        if not self._task.cancelled():
            self._task.result()

    async def _send(self) -> None:
        rng = Random(0)  # noqa: S311 - numbers of events
        number = 0
        while True:
            number += 1
            body = json.dumps(an_event(rng, id=f"evt_honest_{number}")).encode()
            began = time.monotonic()
            try:
                async with asyncio.timeout(30):
                    status = await self._deliver(body, kept=number % 2 == 0)
            except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
                status = repr(error)
            self.took_s.append(time.monotonic() - began)
            if status != "200":
                self.refused.append(status)
            await asyncio.sleep(_PAUSE_S)

    async def _deliver(self, body: bytes, *, kept: bool) -> str:
        if not kept:
            return await self._once(body, await self.target.connect(), keep=False)
        if self._kept is not None:
            try:
                return await self._once(body, self._kept, keep=True)
            except (OSError, asyncio.IncompleteReadError):
                pass
        self._kept = await self.target.connect()
        return await self._once(body, self._kept, keep=True)

    async def _once(
        self,
        body: bytes,
        connection: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        *,
        keep: bool,
    ) -> str:
        reader, writer = connection
        signature = sign(body, SECRET.encode(), int(time.time()))
        writer.write(
            f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nPlexy-Signature: {signature}\r\n\r\n".encode()
            + body
        )
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        (answer,) = answers_in(head + await reader.readexactly(length))
        if not keep:
            writer.transport.abort()
        return "200" if answer.status == 200 else answer.code

    def percentile_ms(self, share: float) -> float:
        """Return the time within which this share of the deliveries was answered."""
        ordered = sorted(self.took_s)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000
