"""Compares the cluster's clock with ours, without writing a record.

`DescribeQuorum` is the only request whose answer contains the current time: the active controller
reports the time at which each voter last caught up. For itself, the controller reports the current
time. Kafka has had this request since version 3.3, except in clusters with ZooKeeper.
"""

import time
from typing import Any, Final

import msgspec
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import for_code
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import CompactArray, CompactString, Int16, Int32, Int64, Schema

from cli.kafka.question import QUORUM_OF, QUORUM_REQUEST, TAGS

_REPLICA: Final = (
    ("number", Int32),
    ("end_offset", Int64),
    ("fetched_ms", Int64),
    ("caught_up_ms", Int64),
    TAGS,
)
_PARTITION: Final = (
    ("partition", Int32),
    ("error_code", Int16),
    ("leader", Int32),
    ("leader_epoch", Int32),
    ("high_watermark", Int64),
    ("voters", CompactArray(*_REPLICA)),
    ("observers", CompactArray(*_REPLICA)),
    TAGS,
)


class _QuorumResponse(Response):  # type: ignore[misc]
    API_KEY = 55
    API_VERSION = 1
    SCHEMA = Schema(
        ("error_code", Int16),
        (
            "topics",
            CompactArray(
                ("topic", CompactString()), ("partitions", CompactArray(*_PARTITION)), TAGS
            ),
        ),
        TAGS,
    )


class _QuorumRequest(RequestStruct):  # type: ignore[misc]
    FLEXIBLE_VERSION = True
    API_KEY = 55
    API_VERSION = 1
    RESPONSE_TYPE = _QuorumResponse
    SCHEMA = QUORUM_REQUEST


class DescribeQuorumRequest(Request[_QuorumRequest]):  # type: ignore[misc]
    """Asks for the controllers' quorum; a broker forwards the request to the active controller."""

    API_KEY = 55

    def build(self, request_struct_class: type[_QuorumRequest]) -> _QuorumRequest:
        """Return the request for the only topic that has a quorum."""
        return request_struct_class(*QUORUM_OF)


class ClockOffset(msgspec.Struct, frozen=True):
    """How far the cluster's clock is ahead of ours; the error is at most ``within_s``."""

    ahead_s: float
    within_s: float


async def ask_clock(client: AIOKafkaClient) -> ClockOffset:
    """Ask for the cluster's time; raise ``KafkaError`` if the request is refused."""
    asked_s = time.time()
    answer: Any = await client.send(client.get_random_node(), DescribeQuorumRequest())
    answered_s = time.time()
    for code in (answer.error_code, *(p[1] for topic in answer.topics for p in topic[1])):
        if code:
            raise for_code(code)("DescribeQuorum")
    return compare(asked_s, _now_ms(answer) / 1000, answered_s)


def compare(asked_s: float, cluster_s: float, answered_s: float) -> ClockOffset:
    """Compare the cluster's time with our times before the request and after the answer.

    >>> compare(100.0, 103.5, 101.0)
    ClockOffset(ahead_s=3.0, within_s=0.5)
    """
    return ClockOffset(cluster_s - (asked_s + answered_s) / 2, (answered_s - asked_s) / 2)


def _now_ms(answer: Any) -> int:
    ((_topic, ((_number, _error, leader, _epoch, _mark, voters, *_rest),), *_),) = answer.topics
    return next(int(caught_up_ms) for number, _, _, caught_up_ms, *_ in voters if number == leader)
