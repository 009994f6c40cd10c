"""Sends an open-loop load: ``bench.latency`` runs `python -m bench.open_load` as a new process.

The only argument is a ``LoadSettings`` as JSON, and the process prints a ``LoadOutcome`` as JSON.
Each delivery is sent at its scheduled time, whether or not earlier deliveries were answered, and
its latency counts from that time. So if the ledger stalls, the time that deliveries wait counts as
latency. ``late_s`` says how late each delivery was sent.

Some deliveries are samples, which show when an event becomes visible in the worker's view. A sample
is the first delivery of its order. After its acknowledgement, the order's document is requested
repeatedly until it is found. A ``Sample`` has two times: the sending of the last request that got
the answer 404, and the arrival of the first answer with the document. The event became visible
between these two times.
"""

import asyncio
import gc
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
import uvloop

from bench.keep_alive import Client
from bench.recording import RecordedDelivery, record_orders
from cli.settings import WEBHOOK_PATH
from ledger.envelope import Envelope, decode_envelope
from ledger.events import Event, Reading, decode_event
from ledger.signature import sign

_OK: Final = 200
_NOT_FOUND: Final = 404
_CONNECTIONS: Final = 32
# An order has more than one delivery on average, so a load needs fewer orders than deliveries.
_ORDERS_PER_DELIVERY: Final = 0.85
# The pause before the next request for the same order. The error of a sample is about as long as
# this pause. With this pause, 10 samples a second cause about 80 requests a second. Each request
# costs the worker a third of a millisecond.
_ASK_AGAIN_S: Final = 0.005
_SEEN_WITHIN_S: Final = 10.0
_ANSWERED_WITHIN_S: Final = 30.0
_BEGIN_AFTER_S: Final = 0.5


class LoadSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The rate, the duration and the destination of a load.

    The load's orders are numbered from ``first_order``, which differs between runs.
    """

    ingest_port: int
    views_port: int
    secret: str
    rate_per_s: float
    warm_up_s: float
    seconds: float
    samples_per_s: float
    first_order: int
    seed: int


class Sample(msgspec.Struct, frozen=True):
    """Two times of an event, in seconds from its scheduled time.

    At ``seen_s``, the first answer with the event arrived. ``not_before_s`` is the time of sending
    the last request whose answer did not have the event.
    """

    seen_s: float
    not_before_s: float


class LoadOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of the deliveries after the warm-up.

    Each time counts from the delivery's scheduled time. ``refused`` also counts deliveries of the
    warm-up.
    """

    sent: int
    refused: int
    ack_s: list[float]
    late_s: list[float]
    samples: list[Sample]
    unseen: int


class _Planned(msgspec.Struct, frozen=True):
    """One delivery: its POST, and for a sample also the GET of its order."""

    request: bytes
    question: bytes | None


def schedule(rate_per_s: float, seconds: float) -> list[float]:
    """Return the evenly spaced times of the deliveries, in seconds from the start."""
    return [number / rate_per_s for number in range(round(rate_per_s * seconds))]


def plan(load: LoadSettings, due_s: Sequence[float]) -> list[_Planned]:
    """Prepare every request, so that only sending remains."""
    orders = range(
        load.first_order, load.first_order + round(len(due_s) * _ORDERS_PER_DELIVERY) + 20
    )
    deliveries = record_orders(orders, load.seed)[: len(due_s)]
    if len(deliveries) < len(due_s):
        raise ValueError(f"{len(orders)} orders have {len(deliveries)} deliveries, not enough")
    sampled = dict(choose_samples(deliveries, due_s, load))
    now_s = int(time.time())
    return [
        _Planned(
            _post(load, each.body, now_s),
            _question(load, sampled[number]) if number in sampled else None,
        )
        for number, each in enumerate(deliveries)
    ]


def choose_samples(
    deliveries: Sequence[RecordedDelivery], due_s: Sequence[float], load: LoadSettings
) -> Iterator[tuple[int, str]]:
    """Yield each sample's number and order; samples are evenly spaced after the warm-up.

    Each sample is the first delivery that names its order, so that the order did not exist before.
    """
    known: set[str] = set()
    next_s = load.warm_up_s
    for number, (delivery, at_s) in enumerate(zip(deliveries, due_s, strict=True)):
        name = order_named_in(delivery.body)
        if name is None or name in known:
            continue
        known.add(name)
        if at_s >= next_s:
            yield number, name
            next_s = max(next_s + 1 / load.samples_per_s, at_s)


def order_named_in(body: bytes) -> str | None:
    """Return the order that a delivery names; the ledger's own code decodes the delivery."""
    envelope = decode_envelope(body)
    if not isinstance(envelope, Envelope):
        return None
    event = decode_event(envelope, 0, 0, time.time_ns() // 1_000_000, Reading())
    return event.order_reference if isinstance(event, Event) else None


def _post(load: LoadSettings, body: bytes, now_s: int) -> bytes:
    head = (
        f"POST {WEBHOOK_PATH} HTTP/1.1\r\nHost: 127.0.0.1:{load.ingest_port}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        f"Plexy-Signature: {sign(body, load.secret.encode(), now_s)}\r\n\r\n"
    )
    return head.encode() + body


def _question(load: LoadSettings, order_id: str) -> bytes:
    return f"GET /orders/{order_id} HTTP/1.1\r\nHost: 127.0.0.1:{load.views_port}\r\n\r\n".encode()


class _Run:
    """Sends one plan with ``perf_counter`` as its clock; the event loop's clock is too coarse."""

    def __init__(
        self, load: LoadSettings, due_s: Sequence[float], planned: Sequence[_Planned]
    ) -> None:
        self._load = load
        self._due_s = due_s
        self._planned = planned
        self._loop = asyncio.get_running_loop()
        self._ingest = Client(load.ingest_port)
        self._views = Client(load.views_port)
        self._unanswered = len(planned)
        self._all_answered = asyncio.Event()
        self._looking: list[asyncio.Task[Sample | None]] = []
        self._ack_s: list[float] = []
        self._late_s: list[float] = []
        self._refused = 0

    async def run(self) -> LoadOutcome:
        await self._ingest.open(_CONNECTIONS)
        await self._views.open(_CONNECTIONS)
        await self._send_all(time.perf_counter() + _BEGIN_AFTER_S)
        async with asyncio.timeout(_ANSWERED_WITHIN_S):
            await self._all_answered.wait()
        samples = await asyncio.gather(*self._looking)
        self._ingest.close()
        self._views.close()
        seen = [sample for sample in samples if sample is not None]
        return LoadOutcome(
            sent=len(self._late_s),
            refused=self._refused,
            ack_s=self._ack_s,
            late_s=self._late_s,
            samples=seen,
            unseen=len(samples) - len(seen),
        )

    async def _send_all(self, begin_s: float) -> None:
        for after_s, planned in zip(self._due_s, self._planned, strict=True):
            due_s = begin_s + after_s
            now_s = await _wait_until(due_s)
            measured = after_s >= self._load.warm_up_s
            if measured:
                self._late_s.append(now_s - due_s)
            self._send(planned, due_s, measured=measured)

    def _send(self, planned: _Planned, due_s: float, *, measured: bool) -> None:
        def answered(status: int, now_s: float) -> None:
            self._unanswered -= 1
            if not self._unanswered:
                self._all_answered.set()
            if status != _OK:
                self._refused += 1
                return
            if measured:
                self._ack_s.append(now_s - due_s)
            if planned.question is not None:
                looking = self._look(planned.question, due_s)
                self._looking.append(self._loop.create_task(looking))

        self._ingest.send(planned.request, answered)

    async def _look(self, question: bytes, due_s: float) -> Sample | None:
        """Ask until the order is found; return ``None`` if a request fails or time runs out."""
        not_before_s = due_s
        while True:
            asked_s = time.perf_counter()
            status, answered_s = await self._views.ask(question)
            if status == _OK:
                return Sample(answered_s - due_s, not_before_s - due_s)
            if status != _NOT_FOUND or answered_s - due_s > _SEEN_WITHIN_S:
                return None
            not_before_s = asked_s
            await asyncio.sleep(_ASK_AGAIN_S)


async def _wait_until(due_s: float) -> float:
    """Wait until ``due_s``; return the time at the end of the wait."""
    while (now_s := time.perf_counter()) < due_s:  # noqa: ASYNC110 - there is no event to await
        await asyncio.sleep(due_s - now_s)
    return now_s


async def send(load: LoadSettings) -> LoadOutcome:
    """Prepare and send the load, and look for the samples; return the outcome."""
    due_s = schedule(load.rate_per_s, load.warm_up_s + load.seconds)
    planned = plan(load, due_s)
    # A garbage collection of the prepared objects would interrupt the sending for milliseconds.
    gc.collect()
    gc.freeze()
    return await _Run(load, due_s, planned).run()


def main() -> None:
    """Send the load that the argument describes, and print the outcome."""
    load = msgspec.json.decode(sys.argv[1].encode(), type=LoadSettings)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        outcome = runner.run(send(load))
    sys.stdout.buffer.write(msgspec.json.encode(outcome))


if __name__ == "__main__":
    main()
