"""Moves the committed offsets of the workers' group, and sets programs' clocks wrong.

After the ``with`` block of a fault, every clock is right again. Once the workers have restarted, no
committed offset is ahead of the tables.
"""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from faults.clock import ProgramClock
from faults.kinds import Inject, Injected
from faults.program import ProgramUnderFault
from faults.refusals import await_end
from faults.stage import FaultStage
from faults.topic_settings import answered
from runtime.kafka.topics import TopicSettings

_STEPS: Final = 3
# Kafka refuses a record whose timestamp is more than an hour ahead of Kafka's own clock.
_FURTHEST_AHEAD_S: Final = 1800
_DAY_S: Final = 24 * 3600
_FURTHEST_BACK_S: Final = 7 * _DAY_S
# Neither the brokers nor the check of signatures tolerates a clock that is wrong by this much.
_LEAST_WRONG_S: Final = 2 * 3600
_READY_WITHIN_S: Final = 90.0


def reset_commits(choose: Callable[[random.Random, int, int], int]) -> Inject:
    """Return a fault that stops every worker, and moves commits as Kafka's `--reset-offsets` does.

    ``choose`` receives the committed offset and the end offset of a partition, and returns the
    offset to commit.
    """

    @contextmanager
    def inject(stage: FaultStage, chance: random.Random) -> Iterator[Injected]:
        for worker in stage.workers:
            worker.stop()
        # Kafka refuses commits from outside the group until the last member's session has ended.
        answered(lambda: _move_commits(stage.settings, partial(choose, chance)))
        yield Injected(tuple(worker.label for worker in stage.workers), 0.0)
        for worker in stage.workers:
            worker.start()

    return inject


async def _move_commits(settings: TopicSettings, choose: Callable[[int, int], int]) -> None:
    consumer = AIOKafkaConsumer(
        **settings.client_options(), group_id=settings.group_id, enable_auto_commit=False
    )
    async with consumer:
        tps = [
            TopicPartition(topic, number)
            for topic in settings.names.hops
            for number in range(settings.partitions)
        ]
        consumer.assign(tps)
        ends = await consumer.end_offsets(tps)
        before = {tp: await consumer.committed(tp) or 0 for tp in tps}
        await consumer.commit({tp: choose(before[tp], ends[tp]) for tp in tps})


@contextmanager
def step_clock(stage: FaultStage, chance: random.Random) -> Iterator[Injected]:
    """Start an extra worker; the worker's clock steps forward and back during the fold."""
    worker = chance.choice(stage.extras)
    clock = _clock_of(worker)
    worker.start()
    for _ in range(_STEPS):
        time.sleep(chance.uniform(1.0, 4.0))
        clock.set(chance.randint(-_FURTHEST_BACK_S, _FURTHEST_AHEAD_S))
    yield Injected((worker.label,), chance.uniform(1.0, 4.0))
    clock.set(0)
    worker.stop()


@contextmanager
def set_workers_clock_ahead(stage: FaultStage, chance: random.Random) -> Iterator[Injected]:
    """Replace a worker with an extra worker whose clock is hours ahead.

    The extra worker ends at its first write, because Kafka refuses the timestamp.
    """
    away, worker = chance.choice(stage.workers), chance.choice(stage.extras)
    clock = _clock_of(worker)
    worker.start()
    stage.await_ready(worker, _READY_WITHIN_S)
    worker.expect_end()
    clock.set(chance.randint(_LEAST_WRONG_S, _DAY_S))
    # The other workers may own all partitions, so one of them has to leave.
    away.kill()
    await_end(stage, worker, "InvalidTimestampError")
    yield Injected((worker.label,), 0.0)
    clock.set(0)
    away.start()


@contextmanager
def set_ingests_clock(stage: FaultStage, chance: random.Random) -> Iterator[Injected]:
    """Set ingress' clock hours ahead or back; ingress refuses deliveries meanwhile."""
    clock = _clock_of(stage.ingest)
    clock.set(chance.choice((-1, 1)) * chance.randint(_LEAST_WRONG_S, _DAY_S))
    yield Injected((stage.ingest.label,), chance.uniform(2.0, 10.0))
    clock.set(0)


def _clock_of(program: ProgramUnderFault) -> ProgramClock:
    if program.clock is None:
        raise ValueError(f"{program.label} has no clock of its own")
    return program.clock
