"""This worker's membership in its group, under a fixed name.

The group's coordinator is a broker. This module adds the worker's name and rules to the requests to
the coordinator. It also asks the coordinator whether this worker is still a member in the
generation in which a chunk was fetched; a generation is one assignment of the partitions.

Invariants: If two processes have the same name, the earlier process ends. Two workers never share a
group if their settings fold the log to different states. The question about the membership leaves
the consumer's state unchanged; the consumer's own heartbeat may change it.

aiokafka's heartbeats and commits lack the worker's name (see ``corrections.named``). Without the
name, Kafka would answer "unknown member" to the earlier of two processes with the same name. That
process would join again, and the two processes would take the partitions from each other forever.
"""

import asyncio
import time
from typing import Any, Final

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
from aiokafka.protocol.group import HeartbeatRequest, JoinGroupRequest

from runtime.fault import Fault
from runtime.fold_rules import REMEDY, FoldSettings, agreed_in, difference, protocols
from runtime.kafka import corrections
from runtime.kafka.corrections import OffsetCommitResponseV7
from runtime.kafka.internals import ask_coordinator, assignor_of, member_name, offer_protocols

SESSION_TIMEOUT_S: Final = 10.0
"""A worker that sends no heartbeat for this long loses its partitions to the other workers."""

# Linux has a clock that keeps running while the machine is suspended.
_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_NO_COORDINATOR: Final = frozenset(
    {GroupCoordinatorNotAvailableError, NotCoordinatorForGroupError, GroupLoadInProgressError}
)

# A worker that has ended remains a member of its group for one session timeout.
_OTHERS_END_WITHIN_S: Final = SESSION_TIMEOUT_S + 5.0
_JOIN_AGAIN_S: Final = 0.5

# Kafka's FENCED_INSTANCE_ID, for which aiokafka has no class.
_FENCED: Final = 82

_send = corrections.send_to_coordinator


class TakenNameError(Exception):
    """Another process has joined the group under this worker's name."""


class OtherRulesError(Exception):
    """The group's workers have other settings for the fold than this worker has."""


def heed_fencing() -> None:
    """Make each named member of this process fail once another process has taken its name.

    A second call changes nothing.
    """
    corrections.replace_send_to_coordinator(_send_with_name)


async def _send_with_name(coordinator: Any, request: Any) -> Any:
    """Send a request to the group's coordinator; raise ``TakenNameError`` if the name is taken.

    A worker that rejoins, for example after it was suspended, takes the name from its own former
    membership. The former membership may still have a request in flight; for that request,
    ``UnknownMemberIdError`` is raised instead.
    """
    name, member_id = member_name(coordinator), coordinator.member_id
    if name is None:
        return await _send(coordinator, request)
    # A worker that is about to join has no member id yet, so its heartbeats and commits carry no
    # name.
    if member_id:
        request = corrections.named(request, name)
    if isinstance(request, JoinGroupRequest):
        answer = await _join(coordinator, request)
    else:
        answer = await _send(coordinator, request)
    if _FENCED in _error_codes(answer):
        if coordinator.member_id != member_id:
            raise UnknownMemberIdError(member_id)
        raise TakenNameError(
            f"another process has joined the group {coordinator.group_id} under this worker's "
            f"name, {name}. Only one of the two processes may run: stop one of them. If "
            "LEDGER_DATA_DIR is a copy of another worker's folder, delete the file `worker-id` "
            "in the copy before you start the worker on it"
        )
    return answer


async def _join(coordinator: Any, request: Any) -> Any:
    """Join with protocol names that encode this worker's settings for the fold.

    Raise ``OtherRulesError`` if the group's workers have other settings. In the returned answer,
    the assignor's own name replaces the protocol name on which the group agreed, because aiokafka
    knows the assignor only by its own name.
    """
    settings: FoldSettings = assignor_of(coordinator).app.settings
    own = offer_protocols(request, protocols(settings))
    give_up_s = clock_s() + _OTHERS_END_WITHIN_S
    why: Fault | None = None
    while True:
        answer = await _send(coordinator, request)
        if for_code(answer.error_code) is not InconsistentGroupProtocolError:
            answer.group_protocol = own
            return answer
        described = await _send(coordinator, DescribeGroupsRequest([coordinator.group_id]))
        # During a rebalance, a group does not report its protocol, so an earlier result is kept.
        why = difference(settings, agreed_in(described)) or why
        if clock_s() > give_up_s:
            unsaid = Fault(f"{coordinator.group_id}'s workers fold with different settings", REMEDY)
            raise OtherRulesError(str(why or unsaid))
        await asyncio.sleep(_JOIN_AGAIN_S)


def _error_codes(answer: Any) -> set[int]:
    if isinstance(answer, OffsetCommitResponseV7):
        return {code for _, partitions in answer.topics for _, code in partitions}
    return {getattr(answer, "error_code", 0)}


def clock_s() -> float:
    """Return the seconds of a clock that never goes back, and that runs during a suspension."""
    return time.clock_gettime(_CLOCK)


async def ask_group(coordinator: Any, generation: int) -> bool | None:
    """Return whether the group accepts a heartbeat for a generation; ``None`` if it is not known.

    A coordinator that is still loading the group answers every heartbeat with "no error", and
    checks neither the member nor the generation (Kafka's ``GroupCoordinator``). While it loads the
    group, the coordinator refuses to describe the group. So this function asks for the group's
    description first.
    """
    group = coordinator.group_id
    try:
        described = await ask_coordinator(coordinator, DescribeGroupsRequest([group]))
        if any(for_code(each[0]) is not NoError for each in described.groups):
            return None
        # The member id is read only now, because the worker may have joined again during the first
        # request.
        heartbeat = HeartbeatRequest(group, generation, coordinator.member_id)
        answer = await ask_coordinator(coordinator, heartbeat)
    except KafkaError:
        return None
    error = for_code(answer.error_code)
    if error in _NO_COORDINATOR:
        return None
    # While the group waits for its members to rejoin, the members still have their partitions.
    return error in {NoError, RebalanceInProgressError}
