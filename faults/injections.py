"""Lists every kind of fault, with how each is injected and undone.

Input: a stage, and a seeded random generator. Output: a fault that lasts as long as a block.
Invariant: after the block the stage works again, although some data may be lost.
"""

import random
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from faults import group, topic_settings
from faults.disk import SmallDisk
from faults.folders import DOWN_AT_MOST_S, damage_table, exhaust, run_copy
from faults.kinds import Inject, Injected, Kind
from faults.program import ProgramUnderFault
from faults.proxy import Network
from faults.stage import Stage

# Others may take this long to take over a killed worker's partitions: its session lasts 10 s.
TAKEN_OVER_WITHIN_S: Final = 15.0


@contextmanager
def _kill_worker(stage: Stage, chance: random.Random) -> Iterator[Injected]:
    """Kill a worker, and restart it at once or after the others had to take over."""
    worker = chance.choice(stage.workers)
    worker.kill()
    yield Injected((worker.label,), chance.choice([0.0, 0.0, 1.0, 15.0]))
    worker.start()


@contextmanager
def _kill_worker_for_good(stage: Stage, chance: random.Random) -> Iterator[Injected]:
    """Kill a worker, and restart it only after the others fold its partitions."""
    worker = chance.choice(stage.workers)
    worker.kill()
    yield Injected((worker.label,), DOWN_AT_MOST_S, take_over=True)
    worker.start()


@contextmanager
def _stop_worker(stage: Stage, chance: random.Random) -> Iterator[Injected]:
    worker = chance.choice(stage.workers)
    worker.stop()
    yield Injected((worker.label,), chance.choice([0.0, 0.0, 5.0]))
    worker.start()


@contextmanager
def _freeze_worker(stage: Stage, chance: random.Random) -> Iterator[Injected]:
    """Freeze a worker for less than its session (10 s), or longer, so that others take over.

    It need not end in either case: Kafka refuses its late writes, and it drops its chunks.
    """
    worker = chance.choice(stage.workers)
    worker.freeze()
    yield Injected((worker.label,), chance.choice(stage.pauses.worker_frozen))
    worker.go_on()


@contextmanager
def _lose_tables(stage: Stage, chance: random.Random) -> Iterator[Injected]:
    """Kill a worker and delete its tables, which it then restores from their changelogs."""
    worker = chance.choice(stage.workers)
    worker.kill()
    shutil.rmtree(worker.folder / "tables", ignore_errors=True)
    yield Injected((worker.label,), 0.0)
    worker.start()


@contextmanager
def _join_and_leave(stage: Stage, chance: random.Random) -> Iterator[Injected]:
    """Start one or two more workers, which then leave one after the other, in any order."""
    joining = chance.sample(stage.extras, chance.choice([1, 2]))
    for each in joining:
        each.start()
    yield Injected(
        tuple(sorted(each.label for each in joining)), chance.uniform(*stage.pauses.worker_joined)
    )
    for each in joining:
        _end_somehow(each, chance)


@contextmanager
def _rebalance_again_and_again(stage: Stage, chance: random.Random) -> Iterator[Injected]:
    """Change the group several times, each before the previous rebalance has settled."""
    hit = set()
    for _ in range(chance.randint(3, 5)):
        each = chance.choice(stage.extras)
        each.start()
        time.sleep(chance.uniform(0.2, 5.0))
        # The freeze may fall into the moment at which the partitions are assigned.
        frozen = chance.choice(stage.workers)
        frozen.freeze()
        time.sleep(chance.choice([0.1, 0.5, 1.5]))
        frozen.go_on()
        _end_somehow(each, chance)
        hit |= {each.label, frozen.label}
    yield Injected(tuple(sorted(hit)), chance.uniform(0.0, 0.5))


@contextmanager
def _kill_ingest(stage: Stage, chance: random.Random) -> Iterator[Injected]:
    stage.ingest.kill()
    yield Injected((stage.ingest.label,), chance.uniform(0.0, 2.0))
    stage.ingest.start()


@contextmanager
def _stop_ingest(stage: Stage, chance: random.Random) -> Iterator[Injected]:
    stage.ingest.stop()
    yield Injected((stage.ingest.label,), chance.uniform(0.0, 1.0))
    stage.ingest.start()


@contextmanager
def _freeze_ingest(stage: Stage, chance: random.Random) -> Iterator[Injected]:
    stage.ingest.freeze()
    yield Injected((stage.ingest.label,), chance.uniform(1.0, 6.0))
    stage.ingest.go_on()


@contextmanager
def _kill_broker(stage: Stage, chance: random.Random) -> Iterator[Injected]:
    broker = chance.choice(stage.brokers)
    broker.kill()
    yield Injected((broker.folder.name,), chance.uniform(0.0, 5.0))
    stage.start_again(broker)


@contextmanager
def _stop_broker(stage: Stage, chance: random.Random) -> Iterator[Injected]:
    broker = chance.choice(stage.brokers)
    broker.stop()
    yield Injected((broker.folder.name,), chance.uniform(0.0, 3.0))
    stage.start_again(broker)


@contextmanager
def _freeze_broker(stage: Stage, chance: random.Random) -> Iterator[Injected]:
    broker = chance.choice(stage.brokers)
    broker.pause()
    yield Injected((broker.folder.name,), chance.uniform(1.0, 12.0))
    broker.resume()


@contextmanager
def _lose_disk(stage: Stage, chance: random.Random) -> Iterator[Injected]:
    """Kill a broker and delete its disk, which the other two then fill again."""
    broker = chance.choice(stage.brokers)
    broker.kill()
    broker.erase()
    yield Injected((broker.folder.name,), chance.uniform(0.0, 5.0))
    stage.start_again(broker)


def _network(network: Network, longest_s: float) -> Inject:
    @contextmanager
    def inject(stage: Stage, chance: random.Random) -> Iterator[Injected]:
        number = chance.randrange(len(stage.proxies))
        stage.proxies[number].network = network
        yield Injected((stage.brokers[number].folder.name,), chance.uniform(1.0, longest_s))
        stage.proxies[number].network = Network.GOOD

    return inject


def _end_somehow(program: ProgramUnderFault, chance: random.Random) -> None:
    if chance.random() < 0.5:  # noqa: PLR2004 - one or the other
        program.kill()
    else:
        program.stop()


_DISK_FULL: Final = exhaust(SmallDisk.fill, "make room there", "MiB free")
_NO_INODES: Final = exhaust(SmallDisk.use_up_inodes, "delete files there", "inode")

KINDS: Final[tuple[Kind, ...]] = (
    Kind("worker killed", "worker", _kill_worker),
    Kind("worker killed for good", "worker", _kill_worker_for_good, take_over=True),
    Kind("worker's disk full", "worker", _DISK_FULL, take_over=True, takes_disk=True),
    Kind("worker's inodes used up", "worker", _NO_INODES, take_over=True, takes_disk=True),
    Kind("worker's table damaged", "worker", damage_table, alone=True),
    Kind("worker's folder copied", "worker", run_copy, alone=True),
    Kind("worker stopped", "worker", _stop_worker),
    Kind("worker frozen", "worker", _freeze_worker),
    Kind("worker's tables lost", "worker", _lose_tables),
    Kind("worker joins and leaves", "worker", _join_and_leave),
    Kind("worker's clock steps", "worker", group.step_clock, takes_clock=True),
    Kind("commits set ahead", "worker", group.set_commits_to_the_end, alone=True),
    Kind("rebalances in a row", "worker", _rebalance_again_and_again),
    Kind("ingress killed", "ingress", _kill_ingest),
    Kind("ingress stopped", "ingress", _stop_ingest),
    Kind("ingress frozen", "ingress", _freeze_ingest),
    Kind("broker killed", "broker", _kill_broker, restarts_broker=True),
    Kind("broker stopped", "broker", _stop_broker, restarts_broker=True),
    Kind("broker frozen", "broker", _freeze_broker),
    Kind("broker's disk lost", "broker", _lose_disk, takes_replicas=True, restarts_broker=True),
    Kind(
        "replicas too few",
        "broker",
        topic_settings.require_more_replicas,
        alone=True,
        takes_replicas=True,
        restarts_broker=True,
    ),
    # These belong to the brokers' layer, because a broker must be up to change a setting.
    Kind("compression changed", "broker", topic_settings.change_compression),
    Kind("settings changed", "broker", topic_settings.change_settings, alone=True),
    Kind("message size lowered", "broker", topic_settings.lower_max_message_bytes, alone=True),
    Kind("network slow", "network", _network(Network.SLOW, 8.0)),
    Kind("network silent", "network", _network(Network.SILENT, 12.0)),
    Kind("network refuses", "network", _network(Network.REFUSING, 6.0)),
)
