"""The lease: for how long a worker may take its partitions for its own.

In: answered heartbeats. Out: whether others can have our partitions by now. Never: a yes that is
based on our own belief: a worker that was frozen for longer than its session has lost its
partitions, and learns it only when its next heartbeat is answered.
"""

import time
from typing import Any, Final

# A session is counted on the broker's clock, and a write is under way for a while.
_TRUSTED_SHARE: Final = 0.8


class Lease:
    """Valid for a part of a session from each answered heartbeat on."""

    def __init__(self, session_s: float) -> None:
        self._trusted_s = session_s * _TRUSTED_SHARE
        self._until_s = 0.0

    def is_valid(self) -> bool:
        """Return whether others can't have our partitions yet."""
        return time.monotonic() < self._until_s

    def renew(self, sent_s: float) -> None:
        """Note that what was sent to the group then was answered: it counts from a bit later."""
        self._until_s = max(self._until_s, sent_s + self._trusted_s)

    def renew_with_heartbeats_of(self, coordinator: Any) -> None:
        """Have each answered heartbeat renew it; aiokafka's coordinator tells nobody of them.

        Called when partitions were assigned, which the group answers like a heartbeat.
        """
        self.renew(time.monotonic())
        if getattr(coordinator, "lease", None) is self:
            return
        heartbeat = coordinator._do_heartbeat  # noqa: SLF001

        async def renewing() -> bool:
            sent_s = time.monotonic()
            answered = bool(await heartbeat())
            if answered:
                self.renew(sent_s)
            return answered

        coordinator._do_heartbeat = renewing  # noqa: SLF001
        coordinator.lease = self
