"""Records of the log of record, and their places.

The protocols name the attributes that the rules need. The records of ``aiokafka``, of a worker's
chunks and of a proof have these attributes.
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec


class Place(msgspec.Struct, frozen=True, order=True):
    """The place of a record in its topic."""

    partition: int
    offset: int


class Record(Protocol):
    """A record of the log as a consumer returns it."""

    @property
    def key(self) -> bytes | None:
        """The event's id, unless a program other than ingress wrote the record."""

    @property
    def value(self) -> bytes | None:
        """The body of a delivery."""

    @property
    def partition(self) -> int:
        """The partition that holds the record."""

    @property
    def offset(self) -> int:
        """The record's offset in its partition."""

    @property
    def timestamp(self) -> int:
        """When the delivery was received, in Unix milliseconds."""


class SignedRecord(Record, Protocol):
    """A record of the log with the headers that ingress stored next to the body."""

    @property
    def headers(self) -> Sequence[tuple[str, bytes]]:
        """The delivery's signature, time of arrival and content type."""
