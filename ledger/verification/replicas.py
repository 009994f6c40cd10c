"""Replicas: the tables on each worker's disk, compared with the changelogs.

Input: the workers' reports about their disks, and the records of the changelogs. Output: the
replicas that differ. A replica is compared at its own end offset: its rows must have the same
digest as the changelog's rows below that offset.
"""

from collections import defaultdict
from collections.abc import Collection
from typing import NamedTuple

import msgspec

from ledger.digest import ChangelogDigest, Damage
from ledger.topics import TableName
from ledger.verification.differences import Difference, DifferenceKind


class Replica(msgspec.Struct, frozen=True, kw_only=True):
    """One partition of a table on one worker's disk.

    It holds the rows of the changelog below the offset ``end``: ``rows`` rows, whose digest
    (``ledger.digest``) is ``digest``, in hex. For a partition that the worker folds, ``end`` is the
    current end. For any other partition, ``end`` is the end at ``scrubbed_at_ms`` (in Unix
    milliseconds), when the whole disk was last read. ``digest`` is ``None`` until the disk has been
    read for the first time.
    """

    table: TableName
    changelog: str
    partition: int
    is_active: bool
    end: int
    rows: int
    digest: str | None
    scrubbed_at_ms: int | None = None


class WorkerTables(msgspec.Struct, frozen=True, kw_only=True):
    """A worker's replicas, and the damage that the worker found; ``worker`` is its address."""

    worker: str
    replicas: list[Replica]
    damages: list[Damage]


class AllTables(msgspec.Struct, frozen=True, kw_only=True):
    """All workers' replicas; ``unreachable`` are the addresses of workers that did not answer."""

    workers: list[WorkerTables]
    unreachable: list[str]


class ReplicaPlace(NamedTuple):
    """The place of a replica."""

    worker: str
    table: TableName
    partition: int

    def __str__(self) -> str:
        return f"partition {self.partition} of the table {self.table} on {self.worker}"


class Comparison(msgspec.Struct, frozen=True):
    """The result of one comparison.

    The replicas in ``equal`` agree with their changelogs. The replicas in ``open`` could not be
    compared: the worker has not read its disk yet, or the changelog's digest at the replica's end
    is not known.
    """

    equal: frozenset[ReplicaPlace]
    open: frozenset[ReplicaPlace]
    differing: dict[ReplicaPlace, Difference]


class Replicas:
    """Compares replicas with their changelogs, while the changelogs are read."""

    def __init__(self, changelogs: Collection[str]) -> None:
        self._changelogs = changelogs
        self._digests: dict[tuple[str, int], ChangelogDigest] = defaultdict(ChangelogDigest)

    def digest(self, topic: str, partition: int) -> ChangelogDigest | None:
        """Return the digest to update with a partition's records, if the topic is a changelog."""
        return self._digests[topic, partition] if topic in self._changelogs else None

    def compare(self, tables: AllTables) -> Comparison:
        """Compare the replicas that were reported before the changelogs were read to their ends."""
        equal: set[ReplicaPlace] = set()
        unknown: set[ReplicaPlace] = set()
        differing: dict[ReplicaPlace, Difference] = {}
        for place, replica in places(tables).items():
            if replica.changelog not in self._changelogs:
                continue
            digest = self._digests[replica.changelog, replica.partition]
            due = digest.at(replica.end)
            if replica.end > digest.end:
                differing[place] = _differs(place, replica, f"ends at {digest.end}")
            elif due is None or replica.digest is None:
                unknown.add(place)
            elif (replica.rows, replica.digest) == (due.rows, str(due)):
                equal.add(place)
            else:
                expected = f"holds {due.rows} rows with digest {due}"
                differing[place] = _differs(place, replica, expected)
        return Comparison(frozenset(equal), frozenset(unknown), differing)

    def forget_compacted(self) -> None:
        """Forget the digests below the ends of the first reading.

        Below those ends, compaction may have removed values that newer values had replaced, so
        these digests may be wrong. Later readings follow the changelogs closely.
        """
        for digest in self._digests.values():
            digest.forget(digest.end)

    def forget(self, tables: AllTables) -> None:
        """Forget the digests at offsets that no replica will report again."""
        ends: dict[tuple[str, int], list[int]] = defaultdict(list)
        for replica in places(tables).values():
            ends[replica.changelog, replica.partition].append(replica.end)
        for place, digest in self._digests.items():
            digest.forget(min(ends[place], default=0))


def places(tables: AllTables) -> dict[ReplicaPlace, Replica]:
    """Return all replicas by their places."""
    return {
        ReplicaPlace(each.worker, replica.table, replica.partition): replica
        for each in tables.workers
        for replica in each.replicas
    }


def _differs(place: ReplicaPlace, replica: Replica, expected: str) -> Difference:
    return Difference(
        kind=DifferenceKind.REPLICA_DIFFERS,
        subject=str(place),
        detail=f"below offset {replica.end} it holds {replica.rows} rows with digest "
        f"{replica.digest}, but {replica.changelog} {expected}. Unless the changelog itself "
        "differs from the log, stop this worker, delete the folder "
        f"{replica.table}-{replica.partition}.db below tables/ in its LEDGER_DATA_DIR, and start "
        "the worker: it restores the partition from the changelog",
    )
