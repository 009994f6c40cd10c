"""Whether this worker is still a member of its group, as the group's coordinator says now.

In: a generation. Out: the coordinator's answer. Never: an effect of it on the consumer's own state,
as its own heartbeat would have.
"""

import time
from typing import Any, Final

from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    KafkaError,
    NoError,
    NotCoordinatorForGroupError,
    RebalanceInProgressError,
    for_code,
)
from aiokafka.protocol.admin import DescribeGroupsRequest
from aiokafka.protocol.group import HeartbeatRequest

SESSION_TIMEOUT_S: Final = 10.0
"""The group gives a worker's partitions to others when it has not heard from it for so long."""

# Linux has a clock that goes on while the machine is suspended.
_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_NO_COORDINATOR: Final = frozenset(
    {GroupCoordinatorNotAvailableError, NotCoordinatorForGroupError, GroupLoadInProgressError}
)


def clock_s() -> float:
    """Return seconds that never go back, and go on while this process stands still."""
    return time.clock_gettime(_CLOCK)


async def ask_group(coordinator: Any, generation: int) -> bool | None:
    """Send a heartbeat of a generation; ``None`` if there is no answer to it.

    A coordinator that still loads the group answers every heartbeat with "no error", without a look
    at member and generation (Kafka's ``GroupCoordinator``). So the group is described first, which
    such a coordinator refuses.
    """
    group = coordinator.group_id
    heartbeat = HeartbeatRequest(group, generation, coordinator.member_id)
    try:
        described = await coordinator._send_req(DescribeGroupsRequest([group]))  # noqa: SLF001
        if any(for_code(each[0]) is not NoError for each in described.groups):
            return None
        answer = await coordinator._send_req(heartbeat)  # noqa: SLF001
    except KafkaError:
        return None
    error = for_code(answer.error_code)
    if error in _NO_COORDINATOR:
        return None
    # While the group waits for its members to join anew, they still have what they had.
    return error in {NoError, RebalanceInProgressError}
