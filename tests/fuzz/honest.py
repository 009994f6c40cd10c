"""Sends honest deliveries during an attack, as a proxy in front of ingress would.

Input: the port of the attacked server. Output: how long each delivery took, and the reason for each
refusal. If the server has closed the kept connection, the sender repeats the delivery one time on a
new connection, as any proxy would.
`python -m tests.fuzz.honest PORT` delivers until its standard input ends, and prints the result.
The sender runs in its own process, so that the work of the attackers does not delay deliveries.
"""

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from random import Random

import msgspec

from ledger.signature import sign
from tests.fuzz.answers import answers_in
from tests.fuzz.inputs import an_event
from tests.fuzz.target import PROJECT, connect
from tests.ingest.conftest import PATH, SECRET

_PAUSE_S = 0.02
# When the run ends, an unanswered delivery counts as refused if it has waited longer than this.
_GIVEN_UP_S = 1.0


class Fared(msgspec.Struct):
    """How long each honest delivery took, and the reason for each refusal."""

    took_s: list[float] = []
    refused: list[str] = []

    def percentile_ms(self, share: float) -> float:
        """Return the time within which this share of the deliveries was answered."""
        ordered = sorted(self.took_s) or [0.0]
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000


@contextlib.asynccontextmanager
async def honest_deliveries(port: int) -> AsyncIterator[Fared]:
    """Deliver during the ``with`` block; at the end of the block, fill in the yielded result."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.fuzz.honest", str(port)),
        cwd=PROJECT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin
    assert process.stdout
    await process.stdout.readline()
    fared = Fared()
    try:
        yield fared
    finally:
        process.stdin.close()
        found = msgspec.json.decode((await process.communicate())[0], type=Fared)
        fared.took_s, fared.refused = found.took_s, found.refused


@dataclass
class _Sender:
    """A sender that alternates between the one kept connection and new connections."""

    port: int
    fared: Fared = field(default_factory=Fared)
    _began: float = 0.0
    _kept: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def until_the_end_of(self, stdin: asyncio.StreamReader) -> None:
        """Deliver until the stream ends."""
        sending = asyncio.create_task(self._send())
        await stdin.read()
        if (waits_s := time.monotonic() - self._began) > _GIVEN_UP_S:
            self.fared.refused.append(f"no answer within {waits_s:.0f} s")
        sending.cancel()

    async def _send(self) -> None:
        rng = Random(0)  # noqa: S311 - draws events
        number = 0
        while True:
            number += 1
            body = json.dumps(an_event(rng, id=f"evt_honest_{number}")).encode()
            self._began = began = time.monotonic()
            try:
                async with asyncio.timeout(30):
                    status = await self._deliver(body, kept=number % 2 == 0)
            except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
                status = repr(error)
            self.fared.took_s.append(time.monotonic() - began)
            if status != "200":
                self.fared.refused.append(status)
            self._began = time.monotonic()
            await asyncio.sleep(_PAUSE_S)

    async def _deliver(self, body: bytes, *, kept: bool) -> str:
        if not kept:
            return await self._once(body, await connect(self.port), keep=False)
        if self._kept is not None:
            try:
                return await self._once(body, self._kept, keep=True)
            except (OSError, asyncio.IncompleteReadError):
                pass
        self._kept = await connect(self.port)
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


async def _main(port: int) -> None:
    stdin = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    sender = _Sender(port)
    sys.stdout.write("delivering\n")
    sys.stdout.flush()
    await sender.until_the_end_of(stdin)
    sys.stdout.write(msgspec.json.encode(sender.fared).decode())


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1])))
