"""Committed offsets, asked of a broker that may not be the one to ask any more.

In: aiokafka 0.14's clients. Out: the same, but that an answer with an error is an error. Never: "no
offset is committed" because a coordinator has moved, or is still loading: a worker would fold its
partitions from the log's start, and whoever asks whether a group has ever committed is told no.

From version 2 on (KIP-88) the answer to OffsetFetch has an error of its own, and then names no
partitions. aiokafka reads the partitions alone, and takes what is not named for not committed.
"""

from collections.abc import Sequence
from typing import Any

from aiokafka import TopicPartition
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import NoError, NotCoordinatorForGroupError, for_code
from aiokafka.protocol.commit import OffsetFetchResponse_v2, OffsetFetchResponse_v3

from runtime import internals

internals.check()
_fetch = GroupCoordinator._do_fetch_commit_offsets  # noqa: SLF001


def heed_errors() -> None:
    """Have every client of this process heed them; doing it again changes nothing."""
    for version in (OffsetFetchResponse_v2, OffsetFetchResponse_v3):
        version.topics = property(_topics_unless_error)
    GroupCoordinator._do_fetch_commit_offsets = _fetch_from_coordinator  # noqa: SLF001


def _topics_unless_error(response: Any) -> Any:
    error = for_code(response.error_code)
    if error is not NoError:
        raise error
    return response.__dict__["topics"]


async def _fetch_from_coordinator(
    coordinator: GroupCoordinator, partitions: Sequence[TopicPartition]
) -> Any:
    """Fetch offsets; the caller tries again after an error, and must then ask somebody else."""
    try:
        return await _fetch(coordinator, partitions)
    except NotCoordinatorForGroupError:
        coordinator.coordinator_dead()
        raise
