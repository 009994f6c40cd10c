"""Asks Kafka for all topics and their ids.

Input: a connected client. Output: each topic with its id, and with the leader and the replicas of
each partition.

A topic that was deleted and created again has its former name but a new id (KIP-516, Kafka 2.8). No
version of the request in aiokafka 0.14 asks for ids, so this module defines a newer version. An
older broker receives an older version.
"""

import random
from base64 import urlsafe_b64encode
from typing import Any, Final

import msgspec
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaConnectionError, KafkaError
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.metadata import MetadataRequest, MetadataRequestStruct
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    TaggedFields,
)

_WITH_IDS: Final = 10
_NO_ID: Final = bytes(16)
_ALL_TOPICS: Final = None


class PartitionState(msgspec.Struct, frozen=True):
    """A partition; ``replicas`` is the number of its replicas.

    ``in_sync`` is the number of the replicas that have every record. ``leader`` is the id of the
    broker that leads the partition; the id is negative if no broker leads it.
    """

    number: int
    replicas: int
    in_sync: int
    leader: int = 0


class FoundTopic(msgspec.Struct, frozen=True):
    """A topic in the cluster's metadata.

    ``topic_id`` is empty if the brokers are too old to give topics ids.
    """

    topic_id: str
    partitions: tuple[PartitionState, ...]


class _Uuid:
    """The protocol's type of an id: sixteen bytes."""

    @staticmethod
    def encode(value: bytes) -> bytes:
        return value

    @staticmethod
    def decode(data: Any) -> bytes:
        read: bytes = data.read(len(_NO_ID))
        return read

    @staticmethod
    def repr(value: bytes) -> str:
        return value.hex()


class _MetadataResponse(Response):  # type: ignore[misc]
    API_KEY = MetadataRequest.API_KEY
    API_VERSION = _WITH_IDS
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32),
                ("host", CompactString("utf-8")),
                ("port", Int32),
                ("rack", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_id", CompactString("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("topic", CompactString("utf-8")),
                ("topic_id", _Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("topic_authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_authorized_operations", Int32),
        ("tags", TaggedFields),
    )


class _MetadataRequest(RequestStruct):  # type: ignore[misc]
    API_KEY = MetadataRequest.API_KEY
    API_VERSION = _WITH_IDS
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _MetadataResponse
    SCHEMA = Schema(
        (
            "topics",
            CompactArray(
                ("topic_id", _Uuid), ("name", CompactString("utf-8")), ("tags", TaggedFields)
            ),
        ),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class _TopicsRequest(Request[MetadataRequestStruct | _MetadataRequest]):  # type: ignore[misc]
    """A request for all topics, in the newest version that the broker and this module know."""

    API_KEY = MetadataRequest.API_KEY

    def build(self, request_struct_class: Any) -> Any:
        if request_struct_class is _MetadataRequest:
            return _MetadataRequest(_ALL_TOPICS, False, False, False, {})
        return MetadataRequest(_ALL_TOPICS).build(request_struct_class)


async def read_topics(client: AIOKafkaClient) -> dict[str, FoundTopic]:
    """Return every topic that this user may see, by name."""
    response = (await ask_any(client, _TopicsRequest())).to_object()
    return {each["topic"]: _found(each) for each in response["topics"] if not each["error_code"]}


async def ask_any(client: AIOKafkaClient, request: Any) -> Any:
    """Send a request to one broker after another, until a broker answers; raise the last error."""
    nodes = [broker.nodeId for broker in client.cluster.brokers()]
    error: KafkaError = KafkaConnectionError("no broker is known")
    for node in random.sample(nodes, len(nodes)):
        try:
            return await client.send(node, request)
        except KafkaError as refused:
            error = refused
    raise error


def _found(topic: Any) -> FoundTopic:
    topic_id = topic.get("topic_id", _NO_ID)
    partitions = tuple(
        PartitionState(each["partition"], len(each["replicas"]), len(each["isr"]), each["leader"])
        for each in topic["partitions"]
    )
    return FoundTopic("" if topic_id == _NO_ID else _text(topic_id), partitions)


def _text(topic_id: bytes) -> str:
    """Return an id as Kafka's own tools print it."""
    return urlsafe_b64encode(topic_id).rstrip(b"=").decode()
