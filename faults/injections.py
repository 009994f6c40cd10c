"""The faults: what each one breaks, for how long, and how it is undone.

In: a stage, and chance (seeded). Out: the fault at work, for as long as the block. Never: a fault
that stays; what a block broke is whole again after it, but for what was lost meanwhile.
"""

import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Final

import msgspec

from faults.proxy import Network
from faults.stage import Program, Stage


class Injected(msgspec.Struct, frozen=True):
    """What was hit, and for how many seconds it stays so."""

    target: str
    hold_s: float


Inject = Callable[[Stage, random.Random], AbstractContextManager[Injected]]


class Kind(msgspec.Struct, frozen=True):
    """One kind of fault. Two faults at a time are of different ``layer``s."""

    name: str
    layer: str
    inject: Inject


@contextmanager
def _kill_worker(stage: Stage, chance: random.Random) -> Iterator[Injected]:
    """SIGKILL, and a restart at once or after the others had to take over."""
    worker = chance.choice(stage.workers)
    worker.kill()
    yield Injected(worker.label, chance.choice([0.0, 0.0, 1.0, 15.0]))
    worker.start()


@contextmanager
def _stop_worker(stage: Stage, chance: random.Random) -> Iterator[Injected]:
    worker = chance.choice(stage.workers)
    worker.stop()
    yield Injected(worker.label, chance.choice([0.0, 0.0, 5.0]))
    worker.start()


@contextmanager
def _freeze_worker(stage: Stage, chance: random.Random) -> Iterator[Injected]:
    """Frozen for less than its session (10 s), or for longer: then others have its partitions."""
    worker = chance.choice(stage.workers)
    worker.freeze()
    # It may be put out of the group, and end itself when it finds out.
    worker.may_end = True
    yield Injected(worker.label, chance.choice([2.0, 5.0, 14.0]))
    worker.go_on()
    worker.may_end = False


@contextmanager
def _lose_tables(stage: Stage, chance: random.Random) -> Iterator[Injected]:
    """End a worker together with its disk; the tables come again from their changelogs."""
    worker = chance.choice(stage.workers)
    worker.kill()
    shutil.rmtree(worker.folder / "tables", ignore_errors=True)
    yield Injected(worker.label, 0.0)
    worker.start()


@contextmanager
def _join_and_leave(stage: Stage, chance: random.Random) -> Iterator[Injected]:
    stage.extra.start()
    stage.extra.may_end = True
    yield Injected(stage.extra.label, chance.uniform(4.0, 12.0))
    _end_somehow(stage.extra, chance)


@contextmanager
def _kill_ingest(stage: Stage, chance: random.Random) -> Iterator[Injected]:
    stage.ingest.kill()
    yield Injected(stage.ingest.label, chance.uniform(0.0, 2.0))
    stage.ingest.start()


@contextmanager
def _stop_ingest(stage: Stage, chance: random.Random) -> Iterator[Injected]:
    stage.ingest.stop()
    yield Injected(stage.ingest.label, chance.uniform(0.0, 1.0))
    stage.ingest.start()


@contextmanager
def _freeze_ingest(stage: Stage, chance: random.Random) -> Iterator[Injected]:
    stage.ingest.freeze()
    yield Injected(stage.ingest.label, chance.uniform(1.0, 6.0))
    stage.ingest.go_on()


@contextmanager
def _kill_broker(stage: Stage, chance: random.Random) -> Iterator[Injected]:
    stage.broker.kill()
    yield Injected("broker", chance.uniform(0.0, 5.0))
    stage.broker.start()


@contextmanager
def _stop_broker(stage: Stage, chance: random.Random) -> Iterator[Injected]:
    stage.broker.stop()
    yield Injected("broker", chance.uniform(0.0, 3.0))
    stage.broker.start()


@contextmanager
def _freeze_broker(stage: Stage, chance: random.Random) -> Iterator[Injected]:
    stage.broker.pause()
    yield Injected("broker", chance.uniform(1.0, 12.0))
    stage.broker.resume()


def _network(network: Network, longest_s: float) -> Inject:
    @contextmanager
    def inject(stage: Stage, chance: random.Random) -> Iterator[Injected]:
        stage.proxy.network = network
        yield Injected("network", chance.uniform(1.0, longest_s))
        stage.proxy.network = Network.GOOD

    return inject


def _end_somehow(program: Program, chance: random.Random) -> None:
    if chance.random() < 0.5:  # noqa: PLR2004 - one or the other
        program.kill()
    else:
        program.stop()


KINDS: Final[tuple[Kind, ...]] = (
    Kind("worker killed", "worker", _kill_worker),
    Kind("worker stopped", "worker", _stop_worker),
    Kind("worker frozen", "worker", _freeze_worker),
    Kind("worker's tables lost", "worker", _lose_tables),
    Kind("worker joins and leaves", "worker", _join_and_leave),
    Kind("ingress killed", "ingress", _kill_ingest),
    Kind("ingress stopped", "ingress", _stop_ingest),
    Kind("ingress frozen", "ingress", _freeze_ingest),
    Kind("broker killed", "broker", _kill_broker),
    Kind("broker stopped", "broker", _stop_broker),
    Kind("broker frozen", "broker", _freeze_broker),
    Kind("network slow", "network", _network(Network.SLOW, 8.0)),
    Kind("network silent", "network", _network(Network.SILENT, 12.0)),
    Kind("network refuses", "network", _network(Network.REFUSING, 6.0)),
)
