"""Whether this worker is still a member of its group, as the group's coordinator says now.

In: a generation. Out: the coordinator's answer. Never: an effect of it on the consumer's own state,
as its own heartbeat would have.
"""

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
from aiokafka.protocol.group import HeartbeatRequest

_NO_COORDINATOR: Final = frozenset(
    {GroupCoordinatorNotAvailableError, NotCoordinatorForGroupError, GroupLoadInProgressError}
)


async def ask_group(coordinator: Any, generation: int) -> bool | None:
    """Send a heartbeat of a generation; ``None`` if there is no answer to it."""
    request = HeartbeatRequest(coordinator.group_id, generation, coordinator.member_id)
    try:
        answer = await coordinator._send_req(request)  # noqa: SLF001
    except KafkaError:
        return None
    error = for_code(answer.error_code)
    if error in _NO_COORDINATOR:
        return None
    # While the group waits for its members to join anew, they still have what they had.
    return error in {NoError, RebalanceInProgressError}
