"""One measured fold: a stage, the input, a peer, the time between two moments, the result.

In: a peer and the deliveries that it is given. Out: a ``Measurement``, and whether its result is
what the ledger's own rules, folded here in one go and in memory, make of the same deliveries.

Every peer first folds a part that is not measured, so that its code is compiled (Java), its
connections are open and its files are there. Then it is stopped where it stands, the rest is
appended to the log, and it goes on: that is the first moment. Nothing else works beside it then.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import msgspec

from bench.profile import profiled
from bench.program import OrderTotals, Program, Report
from bench.recording import RecordedDelivery
from bench.stage import Setup, open_stage
from ledger.deduplication import deduplicate
from ledger.events import FieldNames
from ledger.orders import describe, fold_orders
from ledger.payments import fold_payments

_SHOWN_DIFFERENCES: Final = 5


# Less leaves Java's compiler at work while it is measured.
WARM_UP_SHARE: Final = 0.3


@dataclass(frozen=True)
class Input:
    """What a peer is given: ``warm_up`` of it first, then what is measured."""

    warm_up: Sequence[RecordedDelivery]
    measured: Sequence[RecordedDelivery]

    @classmethod
    def of(cls, deliveries: Sequence[RecordedDelivery], events: int) -> "Input":
        """Take so many to measure, and a share of them before."""
        first = warm_up_of(events)
        return cls(deliveries[:first], deliveries[first : first + events])

    @cached_property
    def expected(self) -> Mapping[str, OrderTotals]:
        """What the ledger's rules make of it."""
        return expected_totals([*self.warm_up, *self.measured])


def warm_up_of(events: int) -> int:
    """Return how many deliveries are folded before so many are measured."""
    return int(events * WARM_UP_SHARE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One run: ``events`` deliveries in ``seconds``, and how its result differs, if it does."""

    program: type[Program]
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
        """Microseconds of a processor per delivery; other work on the machine disturbs it less."""
        return self.cpu_s / self.events * 1e6


async def measure(
    peer: type[Program],
    place: Setup,
    given: Input,
    report: Report,
    profile: str | None = None,
) -> Measurement:
    """Run one peer over its input, on topics of its own; ``BenchError`` if that fails."""
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
    return Measurement(
        program=peer,
        events=len(given.measured),
        seconds=ended_s - began_s,
        cpu_s=cpu_s,
        differences=differences(totals, given.expected),
    )


@dataclass(slots=True)
class _Record:
    """A delivery as a record of the log; its place decides nothing of the totals."""

    key: bytes | None
    value: bytes | None
    partition: int
    offset: int
    timestamp: int
    headers: tuple[tuple[str, bytes], ...] = ()


def expected_totals(deliveries: Sequence[RecordedDelivery]) -> dict[str, OrderTotals]:
    """Fold the deliveries by the ledger's rules, in memory; return each order's totals."""
    records = (
        _Record(each.key, each.body, 0, offset, each.received_at_ms)
        for offset, each in enumerate(deliveries)
    )
    events = deduplicate(records, {}, FieldNames()).events
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
    """Say which orders differ, the first few by name; nothing if none does."""
    wrong = sorted(key for key in got.keys() | expected if got.get(key) != expected.get(key))
    if not wrong:
        return []
    named = [
        f"{order_id}: got {_shown(got.get(order_id))}, expected {_shown(expected.get(order_id))}"
        for order_id in wrong[:_SHOWN_DIFFERENCES]
    ]
    return [f"{len(wrong)} of {len(expected)} orders differ", *named]


def _shown(totals: OrderTotals | None) -> str:
    return "no such order" if totals is None else msgspec.json.encode(totals).decode()
