"""A replica is compared with its changelog at its own end, and every other state is named."""

import msgspec
import pytest

from ledger.differences import Kind
from ledger.digest import digest_of
from ledger.replicas import (
    AllTables,
    Damage,
    Place,
    Replica,
    Replicas,
    WorkerTables,
    damages,
    stands_still,
)

WORKER, OTHER = "http://one:6066", "http://two:6066"
CHANGELOG = "g-payments-changelog"
PLACE = Place(WORKER, "payments", 3)
RECORDS = [(b"a", b"1"), (b"b", b"2"), (b"a", b"3"), (b"b", None)]


def replica(end: int, rows: dict[bytes, bytes] | None = None) -> Replica:
    """Return a replica of the changelog below ``end``, or with other rows."""
    held = dict(RECORDS[:end]) if rows is None else rows
    digest = digest_of((key, value) for key, value in held.items() if value is not None)
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
def test_a_replica_that_holds_its_changelog_is_equal_wherever_it_ends(replicas, end):
    replicas.expect(tables(one=replica(end), two=replica(1)))
    read(replicas)
    found = replicas.compare()
    assert found.equal == {PLACE, Place(OTHER, "payments", 3)}
    assert (found.behind, found.differing) == ({}, {})


@pytest.mark.parametrize(
    "rows",
    [{b"b": b"2"}, {b"a": b"9", b"b": b"2"}, {b"a": b"1", b"b": b"2"}, {b"a": b"3"}, {}],
    ids=["lost", "flipped", "skipped", "too old", "empty"],
)
def test_a_replica_with_other_rows_differs_and_the_remedy_is_named(replicas, rows):
    replicas.expect(tables(one=replica(3, rows), two=replica(3)))
    read(replicas)
    found = replicas.compare()
    assert found.equal == {Place(OTHER, "payments", 3)}
    (place, difference), *others = found.differing.items()
    assert (place, difference.kind, others) == (PLACE, Kind.REPLICA_DIFFERS, [])
    assert difference.subject == f"partition 3 of the table payments on {WORKER}"
    held, due = replica(3, rows), replica(3)
    assert f"below offset 3 it holds {held.rows} rows with digest {held.digest}" in (
        difference.detail
    )
    assert f"{CHANGELOG} holds 2 rows with digest {due.digest} there" in difference.detail
    assert "delete the folder payments-3.db" in difference.detail


def test_a_replica_that_ends_beyond_its_changelog_differs(replicas):
    replicas.expect(tables(one=replica(9, dict(RECORDS[:3]))))
    read(replicas)
    (difference,) = replicas.compare().differing.values()
    assert f"{CHANGELOG} ends at 4 there" in difference.detail


def test_a_replica_below_what_was_read_in_an_earlier_round_is_behind(replicas):
    replicas.expect(tables(one=replica(1)))
    read(replicas, 0, 3)
    replicas.expect(tables(one=replica(2), two=replica(3)))
    read(replicas, 3)
    found = replicas.compare()
    assert found.behind == {PLACE: replica(2)}
    assert found.equal == {Place(OTHER, "payments", 3)}
    assert found.differing == {}
    told = stands_still(PLACE, replica(2))
    assert told.kind == Kind.REPLICA_BEHIND
    assert told.detail.startswith(f"it stands still at offset 2 of {CHANGELOG}")


def test_tables_of_another_ledger_are_not_compared(replicas):
    stranger = msgspec.structs.replace(replica(3), changelog="other-payments-changelog")
    replicas.expect(tables(one=stranger))
    assert replicas.digest(stranger.changelog, 3) is None
    read(replicas)
    found = replicas.compare()
    assert (found.equal, found.behind, found.differing) == (frozenset(), {}, {})


def test_damages_are_told_since_a_time():
    found = [
        Damage(table="orders", partition=2, found_at_ms=at, detail=f"it holds {at}")
        for at in (1000, 3_600_000)
    ]
    worker = WorkerTables(worker=WORKER, replicas=[], damages=found)
    (told,) = damages(AllTables(workers=[worker], unreachable=[]), 1001)
    assert told.kind == Kind.REPLICA_DAMAGED
    assert told.subject == f"partition 2 of the table orders on {WORKER}"
    assert told.detail.startswith("found at 01:00:00 UTC: it holds 3600000. ")
