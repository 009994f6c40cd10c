"""A name that is taken ends a worker; its own former membership does not."""

from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import UnknownMemberIdError
from aiokafka.protocol.group import HeartbeatRequest

from processors.engine import membership
from processors.engine.membership import TakenNameError, heed_fencing


@pytest.fixture
def coordinator() -> Any:
    heed_fencing()
    return SimpleNamespace(group_id="group", _group_instance_id="name", member_id="first")


async def send(coordinator: Any, monkeypatch: pytest.MonkeyPatch, joins_as: str) -> None:
    """Send a heartbeat; while it is under way, the worker joins under a member id."""

    async def answer(_: Any, request: Any) -> Any:
        has_name = not isinstance(request, HeartbeatRequest)
        coordinator.member_id = joins_as
        return SimpleNamespace(error_code=82 if has_name else 25)

    monkeypatch.setattr(membership, "_send", answer)
    heartbeat = HeartbeatRequest("group", 1, coordinator.member_id)
    await GroupCoordinator._send_req(coordinator, heartbeat)


async def test_a_heartbeat_that_is_fenced_says_whose_name_is_taken(coordinator, monkeypatch):
    with pytest.raises(TakenNameError, match="group under this worker's name, name"):
        await send(coordinator, monkeypatch, joins_as="first")


async def test_a_worker_that_has_joined_again_meanwhile_is_not_another_one(
    coordinator, monkeypatch
):
    with pytest.raises(UnknownMemberIdError):
        await send(coordinator, monkeypatch, joins_as="second")


async def test_a_worker_that_has_not_joined_again_yet_does_not_claim_its_name(
    coordinator, monkeypatch
):
    coordinator.member_id = ""
    await send(coordinator, monkeypatch, joins_as="")
