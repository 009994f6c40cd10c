"""One run: deliveries at a steady rate, faults on a schedule drawn from the seed, then a judgement.

In: a stage, a seed, how many faults. Out: what each fault cost, and every difference at the end.
Never: the next fault before the ledger folds again; but a part of the faults come in pairs.
"""

import asyncio
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import Final

import msgspec

from cli.simulate.delivery import SenderOptions
from cli.simulate.simulation import Simulation
from faults.injections import Injected, Kind
from faults.stage import SECRETS, Stage
from faults.watch import Watch

# The longest a fault may cost: a producer may wait that long for an acknowledgement.
_FOLDS_AGAIN_WITHIN_S: Final = 120.0
_READY_AGAIN_WITHIN_S: Final = 90.0
_CALM_S: Final = 2.0
_IN_PAIRS: Final = 0.2
# Plexy waits minutes between attempts; here it takes a run's time.
_TIME_SCALE: Final = 0.05
_ALL_ACKNOWLEDGED_WITHIN_S: Final = 180.0


class Cost(msgspec.Struct, frozen=True):
    """A fault, and the seconds from its beginning until every partition folds what came later.

    ``None`` if that did not happen in time.
    """

    number: int
    kind: str
    target: str
    hold_s: float
    cost_s: float | None


Report = Callable[[Cost], None]
"""Hears of each fault that is over."""


async def run(
    stage: Stage, simulation: Simulation, plan: Iterable[tuple[Kind, ...]], report: Report
) -> list[Cost]:
    """Deliver, break and mend until the plan is through and everything is acknowledged."""
    chance = random.Random(simulation.seed)  # noqa: S311 - the same faults for the same seed
    watch = Watch(stage.settings)
    sending = asyncio.create_task(simulation.run())
    costs: list[Cost] = []
    try:
        for kinds in plan:
            for cost in await _one(stage, watch, kinds, chance, len(costs)):
                costs.append(cost)
                report(cost)
        await asyncio.to_thread(stage.settle, _READY_AGAIN_WITHIN_S)
        simulation.finish()
        await asyncio.wait_for(sending, _ALL_ACKNOWLEDGED_WITHIN_S)
    finally:
        sending.cancel()
        await watch.close()
    return costs


def plan(kinds: list[Kind], count: int, seed: int) -> Iterator[tuple[Kind, ...]]:
    """Draw faults until there are ``count``; some come in pairs, of different layers."""
    chance = random.Random(f"plan {seed}")  # noqa: S311 - the same faults for the same seed
    bag: list[Kind] = []
    while count > 0:
        # Each kind once before any comes again.
        bag = bag or chance.sample(kinds, len(kinds))
        drawn = [bag.pop()]
        others = [kind for kind in kinds if kind.layer != drawn[0].layer]
        if count > 1 and others and chance.random() < _IN_PAIRS:
            drawn.append(chance.choice(others))
        count -= len(drawn)
        yield tuple(drawn)


def sender_options(stage: Stage, rate_per_s: float) -> SenderOptions:
    """Return how the virtual Plexy delivers to the stage."""
    return SenderOptions(
        url=stage.webhook_url, secrets=SECRETS, rate_per_s=rate_per_s, time_scale=_TIME_SCALE
    )


async def _one(
    stage: Stage, watch: Watch, kinds: tuple[Kind, ...], chance: random.Random, number: int
) -> list[Cost]:
    marks = await watch.ends()
    began_s = asyncio.get_running_loop().time()
    injected = await asyncio.to_thread(_begin, stage, kinds, chance)
    hit, stack = injected
    await asyncio.sleep(max(each.hold_s for each in hit))
    await asyncio.to_thread(stack.close)
    folded = await watch.folded_past(marks, _FOLDS_AGAIN_WITHIN_S)
    cost_s = None if folded is None else asyncio.get_running_loop().time() - began_s
    await asyncio.to_thread(stage.settle, _READY_AGAIN_WITHIN_S)
    await asyncio.sleep(chance.uniform(0.0, _CALM_S))
    return [
        Cost(number + n, kind.name, each.target, each.hold_s, cost_s)
        for n, (kind, each) in enumerate(zip(kinds, hit, strict=True), start=1)
    ]


def _begin(
    stage: Stage, kinds: tuple[Kind, ...], chance: random.Random
) -> tuple[list[Injected], ExitStack]:
    with ExitStack() as stack:
        faults: list[AbstractContextManager[Injected]] = [
            kind.inject(stage, chance) for kind in kinds
        ]
        hit = [stack.enter_context(fault) for fault in faults]
        return hit, stack.pop_all()
