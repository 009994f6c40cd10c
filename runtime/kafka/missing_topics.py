"""Asks Kafka about topics without having them created.

Input: aiokafka 0.14's request for metadata. Output: the same request, which says that a topic that
does not exist shall not be made. Invariant: no client of a process that calls ``stay_missing``
creates a topic by asking about it or by writing to it.

A broker with ``auto.create.topics.enable=true``, which is Kafka's default, creates a topic when a
client asks about it, unless the client forbids that. aiokafka never forbids it. A log that was
deleted would come back empty, with one partition and a retention of a week.
"""

from typing import Any

from aiokafka.protocol.metadata import MetadataRequest

from runtime import internals

internals.check()
_build = MetadataRequest.build


def stay_missing() -> None:
    """Have every client of this process ask so; a second call changes nothing."""
    MetadataRequest.build = _build_without_creation


def _build_without_creation(request: MetadataRequest, version: Any) -> Any:
    request._allow_auto_topic_creation = False  # noqa: SLF001
    return _build(request, version)
