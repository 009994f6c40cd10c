"""Asks a broker on 127.0.0.1 about its cluster, without a client library.

A client library would retry, cache answers, need an event loop, and log each failed attempt. In
this module, a missing answer is `None`, never an exception.
"""

from __future__ import annotations

import base64
import socket
import struct
from io import BytesIO
from typing import Any, Final

import msgspec
from aiokafka.protocol.api import RequestHeader_v2, ResponseHeader_v1
from aiokafka.protocol.metadata import MetadataRequest_v1, MetadataResponse_v1
from aiokafka.protocol.types import (
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Int64,
    Schema,
    TaggedFields,
)

from cli.kafka.process import HOST

_ANSWER_WITHIN_S: Final = 2.0
_CLIENT: Final = "plexy-ledger"

TAGS: Final = ("tags", TaggedFields)
_TOPIC: Final = ("topic", CompactString())
_ASKED: Final = ("partitions", CompactArray(("partition", Int32), TAGS))
# The request `DescribeQuorum`, which aiokafka does not have. `QUORUM_OF` is a request about the
# only topic that has a quorum.
QUORUM_REQUEST: Final = Schema(("topics", CompactArray(_TOPIC, _ASKED, TAGS)), TAGS)
QUORUM_OF: Final[tuple[Any, ...]] = ([("__cluster_metadata", [(0, {})], {})], {})


class Partition(msgspec.Struct, frozen=True):
    """A partition, its leader (-1 if it has no leader), and the brokers that replicate it.

    The brokers in `in_sync` have all records of the partition.
    """

    topic: str
    number: int
    leader: int
    replicas: frozenset[int]
    in_sync: frozenset[int]


class Metadata(msgspec.Struct, frozen=True):
    """One broker's view of the cluster: its running brokers, and the requested partitions."""

    brokers: frozenset[int]
    partitions: tuple[Partition, ...]


def ask_metadata(port: int, topics: list[str] | None) -> Metadata | None:
    """Ask about topics (`None` means all); the answer may be outdated if there is no controller."""
    request = MetadataRequest_v1(topics)
    header = request.build_request_header(0, _CLIENT)
    answer = _ask(port, header.encode() + request.encode())
    if answer is None:
        return None
    request.parse_response_header(answer)
    response: Any = MetadataResponse_v1.decode(answer)
    return Metadata(
        brokers=frozenset(number for number, *_ in response.brokers),
        partitions=tuple(
            Partition(topic, number, leader, frozenset(replicas), frozenset(in_sync))
            for _error, topic, _internal, partitions in response.topics
            for _error, number, leader, replicas, in_sync in partitions
        ),
    )


def ask_voters(port: int) -> dict[int, str] | None:
    """Ask the active controller for the number and directory id of each voter."""
    header = RequestHeader_v2(_DescribeQuorum, 0, _CLIENT)
    answer = _ask(port, header.encode() + QUORUM_REQUEST.encode(QUORUM_OF))
    if answer is None:
        return None
    ResponseHeader_v1.decode(answer)
    _error, _message, topics = _DescribeQuorum.ANSWER.decode(answer)
    return {
        number: _directory_id(high, low)
        for _topic, partitions, _tags in topics
        for *_partition, voters, _observers, _more in partitions
        for number, high, low, *_progress in voters
    }


class _DescribeQuorum:
    """Version 2 of the request; the part of the answer that follows the topics is not read."""

    API_KEY: Final = 55
    API_VERSION: Final = 2
    _REPLICA = (
        ("number", Int32),
        ("directory_high", Int64),
        ("directory_low", Int64),
        ("end_offset", Int64),
        ("fetched_ms", Int64),
        ("caught_up_ms", Int64),
        TAGS,
    )
    _STATE = (
        ("partition", Int32),
        ("error", Int16),
        ("message", CompactString()),
        ("leader", Int32),
        ("leader_epoch", Int32),
        ("high_watermark", Int64),
        ("voters", CompactArray(*_REPLICA)),
        ("observers", CompactArray(*_REPLICA)),
        TAGS,
    )
    ANSWER = Schema(
        ("error", Int16),
        ("message", CompactString()),
        ("topics", CompactArray(_TOPIC, ("partitions", CompactArray(*_STATE)), TAGS)),
    )


def _directory_id(high: int, low: int) -> str:
    """Return a directory id in the form of `meta.properties`."""
    return base64.urlsafe_b64encode(struct.pack(">qq", high, low)).decode().rstrip("=")


def _ask(port: int, request: bytes) -> BytesIO | None:
    try:
        with socket.create_connection((HOST, port), timeout=_ANSWER_WITHIN_S) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            with connection.makefile("rb") as stream:
                (length,) = struct.unpack(">i", stream.read(4))
                answer = stream.read(length)
                return BytesIO(answer) if len(answer) == length else None
    except (OSError, struct.error):  # no broker listens yet, or it ended during its answer
        return None
