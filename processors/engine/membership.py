"""This worker's membership in its group: under one name, and as the group's coordinator says now.

Input: the requests of the consumer's coordinator, and the generation of a chunk. Output: the
coordinator's answers. Invariants: of two processes with one name, the former one ends; workers that
would fold the log to other states are never in one group; and a question about the membership does
not change the consumer's own state, as its heartbeat would.

aiokafka 0.14 joins under the worker's name (``group.instance.id``), but its heartbeats and commits
do not carry the name. For them Kafka answers "unknown member" to the former process, which would
join again, and take the partitions back from the new one, in turn for ever. With the name, Kafka
answers that the process is fenced (KIP-345).
"""

import asyncio
import time
from typing import Any, Final

from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    InconsistentGroupProtocolError,
    KafkaError,
    NoError,
    NotCoordinatorForGroupError,
    RebalanceInProgressError,
    UnknownMemberIdError,
    for_code,
)
from aiokafka.protocol.admin import DescribeGroupsRequest
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.commit import OffsetCommitRequest, OffsetCommitResponse_v3
from aiokafka.protocol.group import HeartbeatRequest, HeartbeatResponse_v1, JoinGroupRequest
from aiokafka.protocol.types import Array, Int32, Int64, Schema, String

from runtime import internals
from runtime.fold_rules import REMEDY, FoldSettings, agreed_in, difference, protocols
from runtime.kafka.topic_states import Fault

SESSION_TIMEOUT_S: Final = 10.0
"""The group gives a worker's partitions to others when it has not heard from it for so long."""

# Linux has a clock that goes on while the machine is suspended.
_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_NO_COORDINATOR: Final = frozenset(
    {GroupCoordinatorNotAvailableError, NotCoordinatorForGroupError, GroupLoadInProgressError}
)

# The group of a worker that has ended still has it as a member for a session.
_OTHERS_END_WITHIN_S: Final = SESSION_TIMEOUT_S + 5.0
_JOIN_AGAIN_S: Final = 0.5

# Kafka's FENCED_INSTANCE_ID, which aiokafka has no class for.
_FENCED: Final = 82

internals.check()
_send: Final = GroupCoordinator._send_req  # noqa: SLF001


class TakenNameError(Exception):
    """Another process has joined the group under this worker's name."""


class OtherRulesError(Exception):
    """The workers of the group fold the log by other settings than this one."""


class _HeartbeatResponseV3(Response):  # type: ignore[misc]
    API_KEY = 12
    API_VERSION = 3
    SCHEMA = HeartbeatResponse_v1.SCHEMA


class _HeartbeatV3(RequestStruct):  # type: ignore[misc]
    API_KEY = 12
    API_VERSION = 3
    RESPONSE_TYPE = _HeartbeatResponseV3
    SCHEMA = Schema(
        ("group", String("utf-8")),
        ("generation_id", Int32),
        ("member_id", String("utf-8")),
        ("group_instance_id", String("utf-8")),
    )


class _OffsetCommitResponseV7(Response):  # type: ignore[misc]
    API_KEY = 8
    API_VERSION = 7
    SCHEMA = OffsetCommitResponse_v3.SCHEMA


class _OffsetCommitV7(RequestStruct):  # type: ignore[misc]
    API_KEY = 8
    API_VERSION = 7
    RESPONSE_TYPE = _OffsetCommitResponseV7
    _PARTITION = Array(
        ("partition", Int32),
        ("offset", Int64),
        ("leader_epoch", Int32),
        ("metadata", String("utf-8")),
    )
    SCHEMA = Schema(
        ("group", String("utf-8")),
        ("generation_id", Int32),
        ("member_id", String("utf-8")),
        ("group_instance_id", String("utf-8")),
        ("topics", Array(("topic", String("utf-8")), ("partitions", _PARTITION))),
    )


class _NamedHeartbeat(Request[_HeartbeatV3]):  # type: ignore[misc]
    """A heartbeat that carries the name of its member."""

    API_KEY = 12

    def __init__(self, heartbeat: Any, name: str) -> None:
        self._heartbeat = heartbeat
        self._name = name

    def build(self, request_struct_class: type[_HeartbeatV3]) -> _HeartbeatV3:
        of = self._heartbeat
        return request_struct_class(of._group, of._generation_id, of._member_id, self._name)  # noqa: SLF001


class _NamedOffsetCommit(Request[_OffsetCommitV7]):  # type: ignore[misc]
    """A commit that carries the name of its member; it names no leader epochs."""

    API_KEY = 8

    def __init__(self, commit: Any, name: str) -> None:
        self._commit = commit
        self._name = name

    def build(self, request_struct_class: type[_OffsetCommitV7]) -> _OffsetCommitV7:
        of = self._commit
        topics = [
            (topic, [(partition, offset, -1, text) for partition, offset, text in partitions])
            for topic, partitions in of._topics  # noqa: SLF001
        ]
        return request_struct_class(
            of._consumer_group,  # noqa: SLF001
            of._consumer_group_generation_id,  # noqa: SLF001
            of._consumer_id,  # noqa: SLF001
            self._name,
            topics,
        )


def heed_fencing() -> None:
    """Have each named member of this process end when its name is taken; idempotent."""
    GroupCoordinator._send_req = _send_with_name  # noqa: SLF001


async def _send_with_name(coordinator: Any, request: Any) -> Any:
    """Send a request of a group's coordinator; raise ``TakenNameError`` if the name is taken.

    A worker that joins again, as after it stood still, takes the name from its own former
    membership, and a request of that one may still be under way.
    """
    name, member_id = coordinator._group_instance_id, coordinator.member_id  # noqa: SLF001
    if name is None:
        return await _send(coordinator, request)
    # A worker that is about to join has no member id, with which Kafka would compare the name's.
    if member_id and isinstance(request, HeartbeatRequest):
        request = _NamedHeartbeat(request, name)
    elif member_id and isinstance(request, OffsetCommitRequest):
        request = _NamedOffsetCommit(request, name)
    if isinstance(request, JoinGroupRequest):
        answer = await _join(coordinator, request)
    else:
        answer = await _send(coordinator, request)
    if _FENCED in _error_codes(answer):
        if coordinator.member_id != member_id:
            raise UnknownMemberIdError(member_id)
        raise TakenNameError(
            f"another process has joined the group {coordinator.group_id} under this worker's "
            f"name, {name}. Only one may run: stop the other one, or this one. If "
            "LEDGER_DATA_DIR is a copy of another worker's folder, delete the file `worker-id` "
            "in the copy before you start the worker on it"
        )
    return answer


async def _join(coordinator: Any, request: Any) -> Any:
    """Join under the names that say how this worker folds; ``OtherRulesError`` if others differ.

    The assignor has one name of its own, and does not see under which of these the group agreed.
    """
    settings: FoldSettings = coordinator._assignors[0].app.settings  # noqa: SLF001
    ((own, metadata),) = request._group_protocols  # noqa: SLF001
    request._group_protocols = [(each, metadata) for each in protocols(settings)]  # noqa: SLF001
    give_up_s = clock_s() + _OTHERS_END_WITHIN_S
    why: Fault | None = None
    while True:
        answer = await _send(coordinator, request)
        if for_code(answer.error_code) is not InconsistentGroupProtocolError:
            answer.group_protocol = own
            return answer
        described = await _send(coordinator, DescribeGroupsRequest([coordinator.group_id]))
        # A group that is about to share its partitions out does not say what it agreed on.
        why = difference(settings, agreed_in(described)) or why
        if clock_s() > give_up_s:
            unsaid = Fault(f"the workers of {coordinator.group_id} fold by other settings", REMEDY)
            raise OtherRulesError(str(why or unsaid))
        await asyncio.sleep(_JOIN_AGAIN_S)


def _error_codes(answer: Any) -> set[int]:
    if isinstance(answer, _OffsetCommitResponseV7):
        return {code for _, partitions in answer.topics for _, code in partitions}
    return {getattr(answer, "error_code", 0)}


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
    try:
        described = await coordinator._send_req(DescribeGroupsRequest([group]))  # noqa: SLF001
        if any(for_code(each[0]) is not NoError for each in described.groups):
            return None
        # Not before the first answer: until then the worker may have joined again.
        heartbeat = HeartbeatRequest(group, generation, coordinator.member_id)
        answer = await coordinator._send_req(heartbeat)  # noqa: SLF001
    except KafkaError:
        return None
    error = for_code(answer.error_code)
    if error in _NO_COORDINATOR:
        return None
    # While the group waits for its members to join anew, they still have what they had.
    return error in {NoError, RebalanceInProgressError}
