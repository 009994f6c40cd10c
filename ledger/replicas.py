"""Replicas: what each worker's disk holds of the tables, as it says itself.

The digests are compared with those of the changelogs at the same offsets, see
``cli.verification.replicas``.
"""

import msgspec

from ledger.topics import TableName


class Replica(msgspec.Struct, frozen=True, kw_only=True):
    """One partition of a table on one worker's disk.

    It holds the changelog below offset ``end``: ``rows`` rows, whose digest (``ledger.digest``) is
    ``digest`` in hex. ``scrubbed_at_ms`` is when the disk was last read as a whole, in Unix
    milliseconds; ``None`` before the first time.
    """

    table: TableName
    changelog: str
    partition: int
    is_active: bool
    end: int
    rows: int
    digest: str
    scrubbed_at_ms: int | None = None


class Damage(msgspec.Struct, frozen=True, kw_only=True):
    """A partition whose rows on disk were not the ones written; its files were deleted."""

    table: TableName
    partition: int
    found_at_ms: int
    detail: str


class WorkerTables(msgspec.Struct, frozen=True, kw_only=True):
    """One worker's replicas, and the damages that it has found; ``worker`` is its address."""

    worker: str
    replicas: list[Replica]
    damages: list[Damage]


class AllTables(msgspec.Struct, frozen=True, kw_only=True):
    """All workers' replicas; ``unreachable`` are the addresses of those that did not answer."""

    workers: list[WorkerTables]
    unreachable: list[str]
