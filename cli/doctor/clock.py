"""What time it is at the brokers, without a record that is written anywhere.

In: a client that is connected. Out: how far the cluster's clock is ahead of ours, and how sure that
is. Never: a write.

The only question whose answer has a clock in it is `DescribeQuorum`: of each voter the active
controller says when it was last caught up, and of itself that is now. (Kafka 3.3 and newer; not in
a cluster that has a ZooKeeper.)
"""

import time
from typing import Any, Final

import msgspec
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import for_code
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Int64,
    Schema,
    TaggedFields,
)

_TAGS: Final = ("tags", TaggedFields)
_REPLICA: Final = (
    ("number", Int32),
    ("end_offset", Int64),
    ("fetched_ms", Int64),
    ("caught_up_ms", Int64),
    _TAGS,
)
_PARTITION: Final = (
    ("partition", Int32),
    ("error_code", Int16),
    ("leader", Int32),
    ("leader_epoch", Int32),
    ("high_watermark", Int64),
    ("voters", CompactArray(*_REPLICA)),
    ("observers", CompactArray(*_REPLICA)),
    _TAGS,
)


class _Answer(Response):  # type: ignore[misc]
    API_KEY = 55
    API_VERSION = 1
    SCHEMA = Schema(
        ("error_code", Int16),
        (
            "topics",
            CompactArray(
                ("topic", CompactString()), ("partitions", CompactArray(*_PARTITION)), _TAGS
            ),
        ),
        _TAGS,
    )


class _Question(RequestStruct):  # type: ignore[misc]
    FLEXIBLE_VERSION = True
    API_KEY = 55
    API_VERSION = 1
    RESPONSE_TYPE = _Answer
    SCHEMA = Schema(
        (
            "topics",
            CompactArray(
                ("topic", CompactString()),
                ("partitions", CompactArray(("partition", Int32), _TAGS)),
                _TAGS,
            ),
        ),
        _TAGS,
    )


class DescribeQuorumRequest(Request[_Question]):  # type: ignore[misc]
    """Asks for the quorum of the controllers; any broker passes it on to the active one."""

    API_KEY = 55

    def build(self, request_struct_class: type[_Question]) -> _Question:
        """Return the question for the one topic that has a quorum."""
        return request_struct_class([("__cluster_metadata", [(0, {})], {})], {})


class Clock(msgspec.Struct, frozen=True):
    """How far the cluster's clock is ahead of ours, in seconds; exact to ``within_s``."""

    ahead_s: float
    within_s: float


async def ask_clock(client: AIOKafkaClient) -> Clock:
    """Ask for the time; a ``KafkaError`` says why there is no answer, such as a missing right."""
    asked_s = time.time()
    answer: Any = await client.send(client.get_random_node(), DescribeQuorumRequest())
    answered_s = time.time()
    for code in (answer.error_code, *(p[1] for topic in answer.topics for p in topic[1])):
        if code:
            raise for_code(code)("DescribeQuorum")
    return compare(asked_s, _now_ms(answer) / 1000, answered_s)


def compare(asked_s: float, there_s: float, answered_s: float) -> Clock:
    """Compare a time that was read there with ours before the question and after the answer.

    >>> compare(100.0, 103.5, 101.0)
    Clock(ahead_s=3.0, within_s=0.5)
    """
    return Clock(there_s - (asked_s + answered_s) / 2, (answered_s - asked_s) / 2)


def _now_ms(answer: Any) -> int:
    ((_topic, ((_number, _error, leader, _epoch, _mark, voters, *_rest),), *_),) = answer.topics
    return next(int(caught_up_ms) for number, _, _, caught_up_ms, *_ in voters if number == leader)
