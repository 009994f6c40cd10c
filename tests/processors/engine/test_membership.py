"""A worker ends if another process takes its name, but not because of its own old membership.

Kafka fences a member of a group if another process has joined the group under the same name.
"""

import time
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import UnknownMemberIdError
from aiokafka.protocol.group import HeartbeatRequest, JoinGroupRequest

from processors.engine import membership
from processors.engine.membership import TakenNameError, clock_s, heed_fencing
from processors.settings import WorkerSettings


@pytest.fixture
def coordinator() -> Any:
    heed_fencing()
    assignor = SimpleNamespace(app=SimpleNamespace(settings=WorkerSettings()))
    return SimpleNamespace(
        group_id="group", _group_instance_id="name", member_id="first", _assignors=[assignor]
    )


async def send(
    coordinator: Any, monkeypatch: pytest.MonkeyPatch, joins_as: str, request: Any = None
) -> None:
    """Send a heartbeat or ``request``; before the answer, the worker's id becomes ``joins_as``."""

    async def answer(_: Any, request: Any) -> Any:
        has_name = not isinstance(request, HeartbeatRequest)
        coordinator.member_id = joins_as
        return SimpleNamespace(error_code=82 if has_name else 25)

    monkeypatch.setattr(membership, "_send", answer)
    heartbeat = HeartbeatRequest("group", 1, coordinator.member_id)
    await GroupCoordinator._send_req(coordinator, request or heartbeat)


async def test_a_fenced_heartbeat_raises_an_error_with_the_taken_name(coordinator, monkeypatch):
    with pytest.raises(TakenNameError, match="group under this worker's name, name"):
        await send(coordinator, monkeypatch, joins_as="first")


async def test_a_worker_that_rejoins_before_the_answer_arrives_does_not_report_a_taken_name(
    coordinator, monkeypatch
):
    with pytest.raises(UnknownMemberIdError):
        await send(coordinator, monkeypatch, joins_as="second")


async def test_a_worker_that_has_not_rejoined_yet_sends_no_name_with_its_heartbeats(
    coordinator, monkeypatch
):
    coordinator.member_id = ""
    await send(coordinator, monkeypatch, joins_as="")


async def test_a_fenced_join_raises_an_error_with_the_taken_name(coordinator, monkeypatch):
    protocols = [("faust", b"")]
    join = JoinGroupRequest("group", 1, 1, coordinator.member_id, "name", "consumer", protocols)
    with pytest.raises(TakenNameError, match="group under this worker's name, name"):
        await send(coordinator, monkeypatch, joins_as="first", request=join)


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="this system has no such clock")
def test_the_clock_of_sessions_and_writers_counts_the_time_while_the_machine_is_suspended(
    monkeypatch,
):
    clocks = {time.CLOCK_BOOTTIME: 5000.0, time.CLOCK_MONOTONIC: 5.0}
    monkeypatch.setattr(time, "clock_gettime", clocks.__getitem__)
    assert clock_s() == 5000.0
