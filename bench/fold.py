"""Measures one fold: runs a peer (our worker or a similar program), and checks the peer's result.

This module also applies the ledger's own rules to the same deliveries, in memory. The peer's result
must equal the result of these rules. Every peer first folds a warm-up that is not measured, so that
its code is compiled (Java), its connections are open and its files exist. Then the peer is paused,
and the rest of the input is appended to the log. The measurement starts when the peer continues, so
no loading takes place during the measurement.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import msgspec

from bench.profile import profiled
from bench.program import OrderTotals, Peer, Report
from bench.recording import RecordedDelivery
from bench.stage import Setup, open_stage
from ledger.deduplication import deduplicate
from ledger.events import Reading
from ledger.orders import describe, fold_orders
from ledger.payments import fold_payments

_SHOWN_DIFFERENCES: Final = 5
# With a smaller share, Java would still compile code during the measurement.
WARM_UP_SHARE: Final = 0.3


@dataclass(frozen=True)
class Input:
    """The deliveries for a peer: first the ``warm_up``, then the ``measured`` deliveries."""

    warm_up: Sequence[RecordedDelivery]
    measured: Sequence[RecordedDelivery]

    @classmethod
    def of(cls, deliveries: Sequence[RecordedDelivery], events: int) -> "Input":
        """Split deliveries into a warm-up and ``events`` measured deliveries."""
        first = warm_up_of(events)
        return cls(deliveries[:first], deliveries[first : first + events])

    @cached_property
    def expected(self) -> Mapping[str, OrderTotals]:
        """The totals that the ledger's rules produce."""
        return expected_totals([*self.warm_up, *self.measured])


def warm_up_of(events: int) -> int:
    """Return the size of the warm-up for a number of measured events."""
    return int(events * WARM_UP_SHARE)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldRun:
    """One run: a peer folded ``events`` deliveries in ``seconds``.

    If the result is correct, ``differences`` is empty.
    """

    program: type[Peer]
    events: int
    seconds: float
    cpu_s: float
    differences: Sequence[str]

    @property
    def rate(self) -> float:
        """Deliveries folded per second."""
        return self.events / self.seconds

    @property
    def cpu_us(self) -> float:
        """CPU time per delivery, in µs; other work on the machine affects ``rate`` more."""
        return self.cpu_s / self.events * 1e6


async def measure(
    peer: type[Peer],
    place: Setup,
    given: Input,
    report: Report,
    profile: str | None = None,
) -> FoldRun:
    """Let one peer fold its input, on its own topics; raise ``BenchError`` on failure."""
    async with open_stage(place) as stage:
        await stage.load(given.warm_up)
        program = peer(stage)
        try:
            await program.start()
            await program.wait(lambda _share: None)
            cpu_before_s = program.cpu_s()
            with program.paused():
                await stage.load(given.measured)
                began_s = time.time()
            async with profiled(program.pid, profile):
                ended_s = await program.wait(report)
            cpu_s = program.cpu_s() - cpu_before_s
        finally:
            await program.stop()
        totals = await program.totals()
    return FoldRun(
        program=peer,
        events=len(given.measured),
        seconds=ended_s - began_s,
        cpu_s=cpu_s,
        differences=differences(totals, given.expected),
    )


@dataclass(slots=True)
class _LogRecord:
    """A delivery as a record of the log; the totals do not depend on its partition and offset."""

    key: bytes | None
    value: bytes | None
    partition: int
    offset: int
    timestamp: int
    headers: tuple[tuple[str, bytes], ...] = ()


def expected_totals(deliveries: Sequence[RecordedDelivery]) -> dict[str, OrderTotals]:
    """Fold the deliveries with the ledger's rules, in memory; return each order's totals."""
    records = (
        _LogRecord(each.key, each.body, 0, offset, each.received_at_ms)
        for offset, each in enumerate(deliveries)
    )
    events = deduplicate(records, {}, Reading()).events
    orders = fold_orders(fold_payments(events, {}).snapshots, {})
    documents = ((order_id, describe(order)) for order_id, order in orders.items())
    return {
        order_id: OrderTotals(
            document.status,
            tuple((code, sums.paid, sums.refunded) for code, sums in document.totals.items()),
        )
        for order_id, document in documents
        if document is not None
    }


def differences(got: Mapping[str, OrderTotals], expected: Mapping[str, OrderTotals]) -> list[str]:
    """Return a line with the number of differing orders, and a line for each of the first few.

    If all orders agree, the list is empty.
    """
    wrong = sorted(key for key in got.keys() | expected if got.get(key) != expected.get(key))
    if not wrong:
        return []
    named = [
        f"{order_id}: got {_shown(got.get(order_id))}, expected {_shown(expected.get(order_id))}"
        for order_id in wrong[:_SHOWN_DIFFERENCES]
    ]
    many = "1 order differs" if len(wrong) == 1 else f"{len(wrong)} orders differ"
    return [f"{many} ({len(expected)} orders expected in all)", *named]


def _shown(totals: OrderTotals | None) -> str:
    return "no such order" if totals is None else msgspec.json.encode(totals).decode()
