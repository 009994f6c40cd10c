"""The open-loop load sends each delivery when it is due, and measures latency from that time."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

from msgspec.structs import replace

from bench.open_load import LoadSettings, choose_samples, order_named_in, schedule, send
from bench.recording import record_orders
from cli.settings import DEVELOPMENT_SECRET

_LOAD = LoadSettings(
    ingest_port=0,
    views_port=0,
    secret=DEVELOPMENT_SECRET,
    rate_per_s=100,
    warm_up_s=0.2,
    seconds=1,
    samples_per_s=10,
    first_order=0,
    seed=1,
)


class _Server:
    """Answers each POST with 200 after ``stall_s``, and the first GET of each path with 404.

    With ``hangs_up``, the server closes every connection without an answer. At the 60th POST, the
    server blocks the process for ``blocks_s``; the sender of the load runs in the same process.
    """

    def __init__(
        self, stall_s: float = 0.0, *, hangs_up: bool = False, blocks_s: float = 0.0
    ) -> None:
        self._blocks_s = blocks_s
        self.connections: set[asyncio.Task[None]] = set()
        self._hangs_up = hangs_up
        self.posted: list[float] = []
        self.asked: dict[bytes, int] = {}
        self._stall_s = stall_s

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.add(asyncio.create_task(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not self._hangs_up and (head := await self._head(reader)):
            line = head.split(b"\r\n")[0]
            if line.startswith(b"POST"):
                lengths = [text for text in head.split(b"\r\n") if text.startswith(b"Content-Len")]
                await reader.readexactly(int(lengths[0].split(b":")[1]))
                self.posted.append(asyncio.get_running_loop().time())
                await asyncio.sleep(self._stall_s)
                if len(self.posted) == 60:
                    time.sleep(self._blocks_s)  # noqa: ASYNC251
                status = b"200 OK"
            else:
                self.asked[line] = self.asked.get(line, 0) + 1
                status = b"200 OK" if self.asked[line] > 1 else b"404 Not Found"
            writer.write(b"HTTP/1.1 %b\r\nContent-Length: 2\r\n\r\n{}" % status)
        writer.close()
        await writer.wait_closed()

    @staticmethod
    async def _head(reader: asyncio.StreamReader) -> bytes:
        try:
            return await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return b""


@asynccontextmanager
async def _serving(server: _Server) -> AsyncIterator[LoadSettings]:
    async with await asyncio.start_server(server.accept, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        yield replace(_LOAD, ingest_port=port, views_port=port)
        await asyncio.wait(server.connections)


def test_the_times_at_which_deliveries_are_due_are_evenly_spaced():
    assert schedule(4, 1) == [0.0, 0.25, 0.5, 0.75]


def test_a_sample_is_the_first_delivery_of_its_order_and_follows_the_warm_up():
    deliveries = record_orders(range(200), 1)
    due_s = schedule(100, len(deliveries) / 100)
    names = [order_named_in(each.body) for each in deliveries]
    samples = list(choose_samples(deliveries, due_s, _LOAD))
    assert samples
    for number, name in samples:
        assert names.index(name) == number
        assert due_s[number] >= _LOAD.warm_up_s


def test_there_are_no_more_samples_per_second_than_requested():
    deliveries = record_orders(range(200), 1)
    due_s = schedule(100, len(deliveries) / 100)
    taken = [due_s[number] for number, _ in choose_samples(deliveries, due_s, _LOAD)]
    gaps = [later - earlier for earlier, later in pairwise(taken)]
    assert min(gaps) > 0.5 / _LOAD.samples_per_s
    assert len(taken) <= (due_s[-1] - _LOAD.warm_up_s) * _LOAD.samples_per_s + 1


async def test_a_stalled_server_still_receives_the_next_deliveries():
    server = _Server(stall_s=0.4)
    async with _serving(server) as load:
        outcome = await send(load)
    assert outcome.sent == 100
    assert not outcome.refused
    # If each delivery waited for the previous answer, the deliveries would arrive 0.4 s apart.
    assert server.posted[-1] - server.posted[0] < 10
    # A timer may fire early, by up to the clock's resolution.
    assert min(outcome.ack_s) > 0.39


async def test_the_delay_is_reported_and_counts_as_latency_if_the_sender_is_blocked():
    async with _serving(_Server(blocks_s=0.5)) as load:
        outcome = await send(load)
    # While the process was blocked, 50 deliveries became due. The first of them waited for 0.5 s.
    assert 0.4 < max(outcome.late_s) <= max(outcome.ack_s)
    assert sum(late_s > 0.1 for late_s in outcome.late_s) >= 30
    assert sum(ack_s > 0.1 for ack_s in outcome.ack_s) >= 30


async def test_each_sampled_order_is_requested_until_found_and_has_an_earliest_and_a_latest_time():
    server = _Server()
    async with _serving(server) as load:
        outcome = await send(load)
    assert outcome.samples
    assert not outcome.unseen
    assert set(server.asked.values()) == {2}
    for sample in outcome.samples:
        assert 0 < sample.not_before_s < sample.seen_s


async def test_deliveries_count_as_refused_if_the_server_closes_their_connections():
    async with _serving(_Server(hangs_up=True)) as load:
        outcome = await send(load)
    assert outcome.refused == 120
