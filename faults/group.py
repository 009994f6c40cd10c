"""Injects faults into the workers' group and clocks: commits set ahead, and clocks that step.

After the block, every clock is right. Once the workers have restarted, no commit is ahead of the
tables.
"""

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from faults.kinds import Injected
from faults.stage import FaultStage
from faults.topic_settings import answered
from runtime.kafka.topics import TopicSettings

_STEPS: Final = 3
# Kafka refuses records that are more than an hour ahead of its own clock.
_FURTHEST_AHEAD_S: Final = 1800
_FURTHEST_BACK_S: Final = 7 * 24 * 3600


@contextmanager
def set_commits_to_the_end(stage: FaultStage, _chance: random.Random) -> Iterator[Injected]:
    """Stop every worker, and set the commits to the ends, as `--reset-offsets --to-latest` does."""
    for worker in stage.workers:
        worker.stop()
    # Kafka refuses commits from outside the group until the last member's session has ended.
    answered(lambda: _commit_ends(stage.settings))
    yield Injected(tuple(worker.label for worker in stage.workers), 0.0)
    for worker in stage.workers:
        worker.start()


async def _commit_ends(settings: TopicSettings) -> None:
    names = settings.names
    consumer = AIOKafkaConsumer(
        **settings.client_options(), group_id=settings.group_id, enable_auto_commit=False
    )
    async with consumer:
        tps = [
            TopicPartition(topic, number)
            for topic in (names.webhooks, names.events, names.payments)
            for number in range(settings.partitions)
        ]
        consumer.assign(tps)
        await consumer.commit(await consumer.end_offsets(tps))


@contextmanager
def step_clock(stage: FaultStage, chance: random.Random) -> Iterator[Injected]:
    """Start an extra worker; the worker's clock steps forward and back during the fold."""
    worker = chance.choice(stage.extras)
    if worker.clock is None:
        raise ValueError(f"{worker.label} has no clock of its own")
    worker.start()
    for _ in range(_STEPS):
        time.sleep(chance.uniform(1.0, 4.0))
        worker.clock.set(chance.randint(-_FURTHEST_BACK_S, _FURTHEST_AHEAD_S))
    yield Injected((worker.label,), chance.uniform(1.0, 4.0))
    worker.clock.set(0)
    worker.stop()
