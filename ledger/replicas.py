"""Replicas: what each worker's disk holds of the tables, compared with the changelogs.

Input: what the workers report about their disks, and the records of the changelogs. Output: the
replicas that differ. A replica is compared at its own end: the digest of its rows must be the
digest of the rows that the changelog holds below that offset.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from ledger.differences import Difference, Kind
from ledger.digest import ChangelogDigest
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


class Place(NamedTuple):
    """Where a replica is."""

    worker: str
    table: TableName
    partition: int

    def __str__(self) -> str:
        return f"partition {self.partition} of the table {self.table} on {self.worker}"


class Comparison(msgspec.Struct, frozen=True):
    """The result of one reading of the changelogs.

    ``equal`` replicas hold what their changelogs say. Replicas ``behind`` ended below the offset
    at which the reading began, so that they could not be compared.
    """

    equal: frozenset[Place]
    behind: dict[Place, Replica]
    differing: dict[Place, Difference]


class Replicas:
    """Compares replicas with their changelogs while the changelogs are read."""

    def __init__(self, changelogs: Collection[str]) -> None:
        self._changelogs = changelogs
        self._digests: dict[tuple[str, int], ChangelogDigest] = defaultdict(ChangelogDigest)
        self._replicas: dict[Place, Replica] = {}

    def digest(self, topic: str, partition: int) -> ChangelogDigest | None:
        """Return the digest that takes the records of a partition, if this is a changelog."""
        return self._digests[topic, partition] if topic in self._changelogs else None

    def expect(self, tables: AllTables) -> None:
        """Compare these replicas; the changelogs are read on after the workers reported them."""
        self._replicas = {
            Place(each.worker, replica.table, replica.partition): replica
            for each in tables.workers
            for replica in each.replicas
            if replica.changelog in self._changelogs
        }
        ends: dict[tuple[str, int], set[int]] = defaultdict(set)
        for replica in self._replicas.values():
            ends[replica.changelog, replica.partition].add(replica.end)
        for place in {*self._digests, *ends}:
            self._digests[place].choose(ends[place])

    def compare(self) -> Comparison:
        """Compare the replicas after the changelogs were read up to their ends."""
        behind: dict[Place, Replica] = {}
        differing: dict[Place, Difference] = {}
        for place, replica in self._replicas.items():
            digest = self._digests[replica.changelog, replica.partition]
            due = digest.at.get(replica.end)
            if due is not None:
                expected = f"{due.rows} rows with digest {due}"
                if (replica.rows, replica.digest) != (due.rows, str(due)):
                    differing[place] = _differs(place, replica, f"holds {expected}")
            elif replica.end > digest.position:
                differing[place] = _differs(place, replica, f"ends at {digest.position}")
            else:
                behind[place] = replica
        equal = frozenset(self._replicas.keys() - behind.keys() - differing.keys())
        return Comparison(equal, behind, differing)


def damages(tables: AllTables, since_ms: int) -> Iterator[Difference]:
    """Yield the damages that workers have found on their own disks since a time."""
    for each in tables.workers:
        for damage in each.damages:
            if damage.found_at_ms >= since_ms:
                at = datetime.fromtimestamp(damage.found_at_ms // 1000, UTC)
                yield Difference(
                    kind=Kind.REPLICA_DAMAGED,
                    subject=str(Place(each.worker, damage.table, damage.partition)),
                    detail=f"found at {at:%H:%M:%S} UTC: {damage.detail}. The worker deleted the "
                    "partition's files and restores them from the changelog: check the disk",
                )


def stands_still(place: Place, replica: Replica) -> Difference:
    """Return the difference for a replica that takes nothing from its changelog any more."""
    return Difference(
        kind=Kind.REPLICA_BEHIND,
        subject=str(place),
        detail=f"it stands still at offset {replica.end} of {replica.changelog}, which has more: "
        "restart the worker",
    )


def _differs(place: Place, replica: Replica, expected: str) -> Difference:
    return Difference(
        kind=Kind.REPLICA_DIFFERS,
        subject=str(place),
        detail=f"below offset {replica.end} it holds {replica.rows} rows with digest "
        f"{replica.digest}, and {replica.changelog} {expected} there. Stop this worker, delete the "
        f"folder {replica.table}-{replica.partition}.db below tables/ in its LEDGER_DATA_DIR, and "
        "start the worker: it restores the partition from the changelog",
    )
