"""A kind of fault, and what one injection of it tells the run.

Input: a stage, and chance (seeded). Output: the fault at work, for as long as the block of an
injection lasts. Invariant: after the block everything is whole again, but for what was lost
meanwhile.
"""

import random
from collections.abc import Callable
from contextlib import AbstractContextManager

import msgspec

from faults.stage import Stage


class Injected(msgspec.Struct, frozen=True):
    """What was hit, and for how many seconds it stays so.

    Where the others have to ``take_over``, it stays so only until they did. ``since_s`` is when it
    was hit, on the monotonic clock, where that is not when the injection began.
    """

    targets: tuple[str, ...]
    hold_s: float
    take_over: bool = False
    since_s: float | None = None


Inject = Callable[[Stage, random.Random], AbstractContextManager[Injected]]


class Kind(msgspec.Struct, frozen=True):
    """One kind of fault. Two faults at a time are of different ``layer``s.

    A kind that others ``take_over`` comes ``alone``, because its cost is what is judged. So does a
    kind under which no program starts. ``restarts_broker`` says that a broker is ended.
    """

    name: str
    layer: str
    inject: Inject
    take_over: bool = False
    alone: bool = False
    takes_disk: bool = False
    takes_replicas: bool = False
    takes_clock: bool = False
    restarts_broker: bool = False

    @property
    def comes_alone(self) -> bool:
        """Whether no other fault is at work meanwhile."""
        return self.take_over or self.alone

    def missing(self, stage: Stage) -> str | None:
        """Say what the stage lacks for it; ``None`` if it has everything."""
        if self.take_over and len(stage.workers) < 2:  # noqa: PLR2004 - it, and who takes over
            return "a second worker"
        if self.takes_disk and not any(worker.disk for worker in stage.workers):
            return "the right to mount a small disk (root on Linux)"
        if self.takes_clock and not any(extra.clock for extra in stage.extras):
            return "libfaketime (Debian's package faketime)"
        if self.takes_replicas and len(stage.brokers) == 1:
            return "other brokers that have its records (--brokers 3)"
        return None
