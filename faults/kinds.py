"""Describes a kind of fault, and one injection of a fault."""

import random
from collections.abc import Callable
from contextlib import AbstractContextManager

import msgspec

from faults.stage import FaultStage


class Injected(msgspec.Struct, frozen=True):
    """The targets of an injected fault, and the number of seconds for which the fault lasts.

    If ``take_over`` is true, the fault ends as soon as other workers fold the partitions.
    ``since_s`` is the monotonic time at which the fault started; ``None`` if the fault started with
    its injection.
    """

    targets: tuple[str, ...]
    hold_s: float
    take_over: bool = False
    since_s: float | None = None


Inject = Callable[[FaultStage, random.Random], AbstractContextManager[Injected]]


class FaultKind(msgspec.Struct, frozen=True):
    """One kind of fault; two simultaneous faults have different ``layer``s.

    A kind with ``take_over`` is injected alone, because a time limit applies to its cost. A kind
    with ``alone`` is also injected alone: no program can start during such a fault, or the fault
    itself needs programs that can start. A kind with ``restarts_broker`` ends and restarts a
    broker.
    """

    name: str
    layer: str
    inject: Inject
    take_over: bool = False
    alone: bool = False
    takes_disk: bool = False
    takes_replicas: bool = False
    takes_clock: bool = False
    takes_credentials: bool = False
    restarts_broker: bool = False

    @property
    def comes_alone(self) -> bool:
        """Whether no other fault is injected at the same time."""
        return self.take_over or self.alone

    def missing(self, stage: FaultStage) -> str | None:
        """Return the requirement that the stage lacks; ``None`` if nothing is missing."""
        if self.take_over and len(stage.workers) < 2:  # noqa: PLR2004 - the target and one more
            return "a second worker"
        if self.takes_disk and not any(worker.disk for worker in stage.workers):
            return "the right to mount a small disk (root on Linux)"
        if self.takes_clock and not any(extra.clock for extra in stage.extras):
            return "libfaketime (Debian's package faketime)"
        if self.takes_replicas and len(stage.brokers) == 1:
            return "other brokers with the same records (--brokers 3)"
        if self.takes_credentials and stage.credentials is None:
            return "brokers that demand credentials (--secured)"
        return None
