"""In every round, the follower compares the replicas with the new records of the changelogs."""

from collections.abc import AsyncIterator, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaError

from cli.topics.ledger_reader import LedgerNames
from cli.verification.follower import Follower
from ledger.digest import RESERVED, digest_of
from ledger.events import Reading
from ledger.topics import TopicNames
from ledger.verification.differences import Difference, DifferenceKind
from ledger.verification.replicas import AllTables, Replica, WorkerTables
from ledger.verification.truth import Truth

NAMES = LedgerNames(TopicNames("", 1), "group")
CHANGELOG = NAMES.changelog("orders")
CLAIM = (RESERVED + b"claim", None)
# A large order has several rows in the table; this is one of them: see ``ledger.large_orders``.
OF_A_LARGE_ORDER = b"b\xffrow"


class _Reader:
    """A cluster that has records in one changelog; a read may fail once, at offset ``fails_at``."""

    names = NAMES

    def __init__(self) -> None:
        self.records: list[tuple[bytes, bytes | None]] = []
        self.fails_at: int | None = None

    async def ends(self, topic: str) -> Mapping[int, int]:
        return {0: len(self.records) if topic == CHANGELOG else 0}

    async def read(
        self, topic: str, starts: Mapping[int, int], ends: Mapping[int, int]
    ) -> AsyncIterator[tuple[int, list[Any]]]:
        if topic != CHANGELOG:
            return
        for offset in range(starts.get(0, 0), ends[0]):
            if offset == self.fails_at:
                self.fails_at = None
                raise KafkaError("away")
            key, value = self.records[offset]
            yield 0, [SimpleNamespace(key=key, value=value, offset=offset, timestamp=0)]

    def tables(self, end: int, rows: Mapping[bytes, bytes] | None = None) -> AllTables:
        """Return the report of a worker whose table has applied the changelog up to an offset."""
        held: dict[bytes, bytes | None] = dict(self.records[:end]) if rows is None else {**rows}
        digest = digest_of(
            {k: v for k, v in held.items() if v is not None and not k.startswith(RESERVED)}
        )
        replica = Replica(
            table="orders",
            changelog=CHANGELOG,
            partition=0,
            is_active=True,
            end=end,
            rows=digest.rows,
            digest=str(digest),
        )
        worker = WorkerTables(worker="http://one", replicas=[replica], damages=[])
        return AllTables(workers=[worker], unreachable=[])


@pytest.fixture
def reader() -> _Reader:
    return _Reader()


@pytest.fixture
def follower(reader: _Reader) -> Follower:
    truth = Truth(Reading(), None, lambda _key: 0, 10**12)
    return Follower(reader, truth)  # type: ignore[arg-type]


async def about_disks(follower: Follower, tables: AllTables | None) -> list[Difference]:
    """Run a round; return the differences of the disks, but not the differences of orders."""
    return [each for each in await follower.round({}, tables) if each.kind.startswith("replica")]


def compared(follower: Follower) -> int:
    return len(follower.disks.equal | follower.disks.differing.keys())


@pytest.mark.parametrize("lag", range(5))
async def test_a_replica_with_any_end_offset_is_compared_after_the_first_round(
    reader, follower, lag
):
    """A standby reports its table as it was when the standby last read its disk.

    That may have been before the follower's previous rounds.
    """
    rounds = [
        [CLAIM, (b"a", b"1")],
        [
            (b"a", b"2"),
            (OF_A_LARGE_ORDER, b"1"),
            (b"b", b"1"),
            (b"a", None),
            (OF_A_LARGE_ORDER, b"2"),
        ],
        [(b"b", b"2"), (OF_A_LARGE_ORDER, None)],
        [],
    ]
    for new in rounds:
        reader.records += new
        end = max(0, len(reader.records) - lag)
        assert await about_disks(follower, reader.tables(end)) == []
        # The follower's first round reads the changelog up to some end offset. Compaction may have
        # removed values below that offset, so a replica with a lower end offset is not compared.
        assert compared(follower) == (end >= 2)


async def test_a_skipped_record_is_reported_from_the_second_round_until_the_table_is_restored(
    reader, follower
):
    reader.records = [(b"a", b"1"), (b"a", b"2"), (b"b", b"1")]
    skipped = {b"a": b"1", b"b": b"1"}
    assert await about_disks(follower, reader.tables(3, skipped)) == []
    (found,) = await about_disks(follower, reader.tables(3, skipped))
    assert found.kind == DifferenceKind.REPLICA_DIFFERS
    assert found.subject == "partition 0 of the table orders on http://one"
    reader.records += [(b"c", b"1")]
    # The reported difference stays the same while the digests change, and while no worker answers.
    assert await about_disks(follower, reader.tables(4, {**skipped, b"c": b"1"})) == [found]
    assert await about_disks(follower, None) == [found]
    assert compared(follower) == 0
    assert await about_disks(follower, reader.tables(4)) == []


async def test_the_digests_stay_correct_if_kafka_interrupts_a_round(reader, follower):
    reader.records = [(b"a", b"1"), (b"b", b"1"), (b"a", b"2"), (b"b", None), (b"c", b"1")]
    reader.fails_at = 3
    with pytest.raises(KafkaError):
        await follower.round({}, reader.tables(5))
    for _ in range(3):
        assert await about_disks(follower, reader.tables(5)) == []
        assert compared(follower) == 1
