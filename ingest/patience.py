"""A timer that is set anew with each request, and hardly ever goes off.

In: how long there is patience from now on. Out: a call, once there is none left. Never: a timer of
the loop's for each setting: that would be two for each request, made and cancelled again. The one
that runs is kept unless it comes too late, and looks again if it comes too early.
"""

import asyncio
from collections.abc import Callable


class Patience:
    """Calls ``lost`` once the time that was set last is over."""

    def __init__(self, loop: asyncio.AbstractEventLoop, lost: Callable[[], None]) -> None:
        self._loop = loop
        self._lost = lost
        self._until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    def last(self, seconds: float) -> None:
        """Have patience for so long from now on, whatever was set before."""
        self._until = self._loop.time() + seconds
        if self._timer is None or self._timer_at > self._until:
            self._look_at(self._until)

    def end(self) -> None:
        """Call nobody any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_at(self, time: float) -> None:
        self.end()
        self._timer_at = time
        self._timer = self._loop.call_at(time, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._loop.time() < self._until:
            self._look_at(self._until)
        else:
            self._lost()
