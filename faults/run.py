"""Runs a schedule of faults drawn from a seed, while deliveries arrive at a steady rate.

After each fault, the run waits until the ledger folds again; the time from the start of the fault
until then is the cost of the fault. Some faults are injected in pairs.
"""

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import Final

import msgspec

from cli.simulate.delivery import SenderOptions
from cli.simulate.simulation import Simulation
from faults.answers import Answers
from faults.kinds import FaultKind, Injected
from faults.program import Stop
from faults.stage import SECRETS, FaultStage
from faults.watch import Watch

# A producer may wait this long for an acknowledgement, so a fault may cost this much time.
_FOLDS_AGAIN_WITHIN_S: Final = 120.0
_READY_AGAIN_WITHIN_S: Final = 90.0
_IN_PAIRS: Final = 0.2
_WAYS_TO_KAFKA: Final = {"broker", "network"}
# Without this factor, the sender would wait for minutes between some attempts.
_TIME_SCALE: Final = 0.05
_ALL_ACKNOWLEDGED_WITHIN_S: Final = 180.0


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """A fault with its cost: the seconds from its start until every partition folds newer records.

    ``cost_s`` is ``None`` after a timeout. ``held_s`` is how long the fault lasted. If
    ``take_over`` is true, the fault lasted until other workers folded the partitions, so
    ``held_s`` nearly equals ``cost_s``. ``stops`` are the programs that the fault ended with
    SIGTERM. If ``kafka_away`` is true, these programs may have been unable to reach Kafka.
    ``answer_s`` is the longest time that ingress took to answer.
    """

    number: int
    kind: str
    target: str
    held_s: float
    cost_s: float | None
    take_over: bool
    kafka_away: bool
    stops: tuple[Stop, ...]
    answer_s: float

    @property
    def ended_s(self) -> float | None:
        """The longest time that a program took to end after SIGTERM."""
        return max((stop.took_s for stop in self.stops), default=None)


Report = Callable[[Cost], None]
"""A function that receives each fault after its end."""


async def run(
    stage: FaultStage,
    simulation: Simulation,
    answers: Answers,
    plan: Iterable[tuple[FaultKind, ...]],
    report: Report,
) -> list[Cost]:
    """Inject and undo the faults of the plan, then wait until every delivery is acknowledged."""
    chance = random.Random(simulation.seed)  # noqa: S311 - the same faults for the same seed
    watch = Watch(stage.settings)
    sending = asyncio.create_task(simulation.run())
    costs: list[Cost] = []
    try:
        for kinds in plan:
            for cost in await _one(stage, watch, answers, kinds, chance):
                costs.append(msgspec.structs.replace(cost, number=len(costs) + 1))
                report(costs[-1])
        await asyncio.to_thread(stage.settle, _READY_AGAIN_WITHIN_S)
        simulation.finish()
        await _all_acknowledged(stage, sending)
    except asyncio.CancelledError:
        stage.give_up()
        raise
    finally:
        sending.cancel()
        await watch.close()
    return costs


def plan(kinds: list[FaultKind], count: int, seed: int) -> Iterator[tuple[FaultKind, ...]]:
    """Yield ``count`` faults; some form a pair, and the two faults of a pair differ in layer."""
    chance = random.Random(f"plan {seed}")  # noqa: S311 - the same faults for the same seed
    bag: list[FaultKind] = []
    while count > 0:
        # Each kind is drawn once before any kind is drawn again.
        bag = bag or chance.sample(kinds, len(kinds))
        drawn = [bag.pop()]
        others = [kind for kind in kinds if kind.layer != drawn[0].layer and not kind.comes_alone]
        in_pair = count > 1 and others and not drawn[0].comes_alone
        if in_pair and chance.random() < _IN_PAIRS:
            drawn.append(chance.choice(others))
        count -= len(drawn)
        yield tuple(drawn)


def sender_options(stage: FaultStage, rate_per_s: float) -> SenderOptions:
    """Return the options with which the virtual Plexy delivers to the stage."""
    return SenderOptions(
        url=stage.webhook_url, secrets=SECRETS, rate_per_s=rate_per_s, time_scale=_TIME_SCALE
    )


async def _all_acknowledged(stage: FaultStage, sending: asyncio.Task[None]) -> None:
    """Wait for the sender; add a finding on a timeout.

    The judge reports each event that was not acknowledged.
    """
    try:
        await asyncio.wait_for(sending, _ALL_ACKNOWLEDGED_WITHIN_S)
    except TimeoutError:
        stage.findings.append(
            f"not every event is acknowledged {_ALL_ACKNOWLEDGED_WITHIN_S:g} s after the last fault"
        )


async def _one(
    stage: FaultStage,
    watch: Watch,
    answers: Answers,
    kinds: tuple[FaultKind, ...],
    chance: random.Random,
) -> list[Cost]:
    stage.fault = " and ".join(kind.name for kind in kinds)
    answers.begin_fault()
    marks = await watch.ends()
    began_s = time.monotonic()
    hit, stack = await asyncio.to_thread(_begin, stage, kinds, chance)
    since_s = min(each.since_s or began_s for each in hit)
    hold_s = max(each.hold_s for each in hit)
    if take_over := any(each.take_over for each in hit):
        # Only records that arrive after the fault show that other workers fold these partitions.
        marks = await watch.ends()
        folded = await watch.folded_past(marks, hold_s)
    else:
        await asyncio.sleep(hold_s)
    held_s = time.monotonic() - since_s
    await asyncio.to_thread(stack.close)
    if not take_over:
        folded = await watch.folded_past(marks, _FOLDS_AGAIN_WITHIN_S)
    cost_s = None if folded is None else folded - since_s
    await asyncio.to_thread(stage.settle, _READY_AGAIN_WITHIN_S)
    kafka_away = any(kind.layer in _WAYS_TO_KAFKA for kind in kinds)
    costs = [
        Cost(
            number=0,
            kind=kind.name,
            target=" and ".join(each.targets),
            held_s=held_s,
            cost_s=cost_s,
            take_over=take_over,
            kafka_away=kafka_away,
            stops=tuple(stage.stops_since(began_s, each.targets)),
            answer_s=answers.of_fault_s,
        )
        for kind, each in zip(kinds, hit, strict=True)
    ]
    stage.fault = f"the calm after {stage.fault}"
    await asyncio.sleep(chance.uniform(0.0, stage.pauses.calm))
    return costs


def _begin(
    stage: FaultStage, kinds: tuple[FaultKind, ...], chance: random.Random
) -> tuple[list[Injected], ExitStack]:
    with ExitStack() as stack:
        faults: list[AbstractContextManager[Injected]] = [
            kind.inject(stage, chance) for kind in kinds
        ]
        hit = [stack.enter_context(fault) for fault in faults]
        return hit, stack.pop_all()
