"""A replica is compared with its changelog up to the replica's end offset.

A replica is a worker's copy of a partition of a table.
"""

import msgspec
import pytest

from ledger.digest import digest_of
from ledger.verification.differences import DifferenceKind
from ledger.verification.replicas import (
    AllTables,
    Comparison,
    Replica,
    ReplicaPlace,
    Replicas,
    WorkerTables,
)

WORKER, OTHER = "http://one:6066", "http://two:6066"
CHANGELOG = "g-payments-changelog"
PLACE = ReplicaPlace(WORKER, "payments", 3)
RECORDS = [(b"a", b"1"), (b"b", b"2"), (b"a", b"3"), (b"b", None)]


def replica(end: int, rows: dict[bytes, bytes] | None = None) -> Replica:
    """Return a replica with this end offset; without ``rows``, it has the rows of the changelog."""
    held = dict(RECORDS[:end]) if rows is None else rows
    digest = digest_of({key: value for key, value in held.items() if value is not None})
    return Replica(
        table="payments",
        changelog=CHANGELOG,
        partition=3,
        is_active=True,
        end=end,
        rows=digest.rows,
        digest=str(digest),
    )


def tables(**replicas: Replica) -> AllTables:
    named = {"one": WORKER, "two": OTHER}
    workers = [
        WorkerTables(worker=named[name], replicas=[each], damages=[])
        for name, each in replicas.items()
    ]
    return AllTables(workers=workers, unreachable=[])


def read(replicas: Replicas, start: int = 0, end: int = len(RECORDS)) -> None:
    values = dict(RECORDS[:start])
    digest = replicas.digest(CHANGELOG, 3)
    for offset, (key, value) in enumerate(RECORDS[start:end], start):
        digest.take(offset, key, values.get(key), value)
        values[key] = value
    digest.reach(end)


@pytest.fixture
def replicas() -> Replicas:
    return Replicas([CHANGELOG])


@pytest.mark.parametrize("end", range(len(RECORDS) + 1))
def test_a_replica_that_matches_its_changelog_is_equal_at_any_end_offset(replicas, end):
    read(replicas)
    found = replicas.compare(tables(one=replica(end), two=replica(1)))
    assert found == Comparison(
        frozenset({PLACE, ReplicaPlace(OTHER, "payments", 3)}), frozenset(), {}
    )


@pytest.mark.parametrize(
    "rows",
    [{b"b": b"2"}, {b"a": b"9", b"b": b"2"}, {b"a": b"1", b"b": b"2"}, {b"a": b"3"}, {}],
    ids=["lost", "flipped", "skipped", "too old", "empty"],
)
def test_a_replica_whose_rows_differ_is_reported_with_the_remedy(replicas, rows):
    read(replicas)
    found = replicas.compare(tables(one=replica(3, rows), two=replica(3)))
    assert found.equal == {ReplicaPlace(OTHER, "payments", 3)}
    (place, difference), *others = found.differing.items()
    assert (place, difference.kind, others) == (PLACE, DifferenceKind.REPLICA_DIFFERS, [])
    assert difference.subject == f"partition 3 of the table payments on {WORKER}"
    actual, due = replica(3, rows), replica(3)
    assert f"below offset 3 it holds {actual.rows} rows with digest {actual.digest}" in (
        difference.detail
    )
    assert f"{CHANGELOG} holds 2 rows with digest {due.digest}" in difference.detail
    assert "delete the folder payments-3.db" in difference.detail


def test_a_replica_that_ends_after_the_end_of_its_changelog_is_reported(replicas):
    read(replicas)
    found = replicas.compare(tables(one=replica(9, dict(RECORDS[:3]))))
    assert f"{CHANGELOG} ends at 4. Unless" in found.differing[PLACE].detail


def test_a_replica_that_has_no_digest_or_ends_below_the_known_offsets_is_not_compared(replicas):
    read(replicas, 0, 2)
    replicas.forget_compacted()
    read(replicas, 2)
    unread = msgspec.structs.replace(replica(3), digest=None, rows=0)
    found = replicas.compare(tables(one=replica(1), two=unread))
    assert found == Comparison(
        frozenset(), frozenset({PLACE, ReplicaPlace(OTHER, "payments", 3)}), {}
    )
    later = tables(one=replica(2), two=replica(3))
    assert len(replicas.compare(later).equal) == 2
    replicas.forget(later)
    assert len(replicas.compare(later).equal) == 2
    replicas.forget(tables(one=replica(4), two=replica(3)))
    assert replicas.compare(later).open == {PLACE}


def test_tables_of_another_ledger_are_not_compared(replicas):
    stranger = msgspec.structs.replace(replica(3), changelog="other-payments-changelog")
    assert replicas.digest(stranger.changelog, 3) is None
    read(replicas)
    assert replicas.compare(tables(one=stranger)) == Comparison(frozenset(), frozenset(), {})
