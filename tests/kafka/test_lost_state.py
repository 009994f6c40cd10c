"""A worker never serves a state that is older than the state that the ledger had reached.

A table that has lost records is folded again from its source. Until the table is complete again,
the worker answers 503, even after a restart in the meantime.
"""

import asyncio
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rocksdict import Options, Rdict

from cli.kafka.broker import EmbeddedKafka
from cli.kafka.distribution import KafkaCache
from ledger.topics import TABLES, TableName, changelog_name
from processors.engine.marks import SOURCE_KEY
from processors.engine.tables import LAST_KEY, OFFSET_KEY
from runtime.kafka.batches import OutRecord, send_to_partition
from tests.kafka.disks import Disk
from tests.kafka.harness import (
    PARTITIONS,
    WorkerProcess,
    commit,
    deliver_held,
    environment,
    group_of,
    moved,
    names_of,
    orders,
    positions,
    producer,
    state_of,
    until,
    wait_folded,
    worker_that_folded,
)
from tests.kafka.verification import verify

pytestmark = pytest.mark.timeout(420)

# The variable HELD names a table, and the variable AFTER is a number. In each partition of this
# table, this worker writes only this number of chunks.
HOLDS_A_REST = """
import asyncio, os
from collections import Counter
from processors.engine.effects import Effects
from processors.settings import WorkerSettings
from processors.worker import run
write, begun = Effects.write, Counter()
async def held(effects):
    if effects._table.name == os.environ["HELD"]:
        begun[effects._chunk.partition] += 1
        if begun[effects._chunk.partition] > int(os.environ["AFTER"]):
            await asyncio.Event().wait()
    await write(effects)
Effects.write = held
run(WorkerSettings.from_environment(os.environ))
"""
PATHS = ("/readyz", "/balances", "/orders", *(f"/orders/ord_{n}" for n in range(60)))


def holds_a_rest(env: dict[str, str], table: TableName, after: int) -> WorkerProcess:
    more = {"HELD": table, "AFTER": str(after), "LEDGER_CHUNK_RECORDS": "1"}
    return WorkerProcess(env | more, [sys.executable, "-c", HOLDS_A_REST])


def assert_serves_nothing(worker: WorkerProcess) -> None:
    """Wait until a worker has recovered its tables, and check that its views answer 503."""

    def said() -> str:
        status, problem = worker.get("/readyz")
        assert status != 200, "a state with a hole is served"
        return problem["detail"] if status else ""

    until(lambda: "folded again" in said(), within_s=60, what=lambda: f"{said()}\n{worker.tail()}")
    assert {worker.get(path)[0] for path in PATHS} == {503}


@pytest.fixture
def broker(kafka_cache: KafkaCache, tmp_path: Path) -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka(tmp_path / "own", cache=kafka_cache) as own:
        yield own


@pytest.mark.parametrize(
    ("table", "shown_by"),
    [("seen", "commits"), ("payments", "a newer table"), ("orders", "commits")],
)
def test_a_table_that_lost_records_is_not_served_until_the_records_are_folded_again(
    broker: EmbeddedKafka, tmp_path: Path, table: TableName, shown_by: str
) -> None:
    """The changelog has lost its end; the group's commits or a newer table show the loss."""
    env, disk = environment(broker.bootstrap, tmp_path / "one"), Disk(broker, tmp_path / "copies")
    copies = []
    for numbers in (range(20), range(20, 60)):
        with worker_that_folded(env, orders(numbers)) as worker:
            worker.stop()
        copies.append(disk.keep())
    disk.bring_back(copies[1], older=copies[0], topics=[changelog_name(group_of(env), table)])
    source = names_of(env).source_of(table)
    before = {tp: at for tp, at in positions(env).items() if tp.topic == source}
    if shown_by == "a newer table":
        for tp in before:
            asyncio.run(commit(env, tp, 0))
    else:
        env = moved(env, tmp_path / "new")
    with holds_a_rest(env, table, after=1) as worker:
        assert_serves_nothing(worker)
        until(
            lambda: any(
                0 < positions(env)[tp].committed < at.committed for tp, at in before.items()
            ),
            within_s=30,
            what="a commit below the former one",
        )
        assert_serves_nothing(worker)
    with holds_a_rest(env, table, after=0) as worker:
        assert_serves_nothing(worker)
    with WorkerProcess(env) as worker:
        worker.wait_ready()
        assert {worker.get(path)[0] for path in PATHS} == {200}
        wait_folded(env, worker)
        code, printed = verify(env | {"LEDGER_ALLOW_UNSIGNED": "true"})
        assert code == 0, printed


# A mark is a key under which a table stores data about itself. Each case has first the marks that
# the tables lack, and then the marks whose values are invalid.
UNMARKED = {
    "without the offset of the changelog": ((OFFSET_KEY,), ()),
    "without the mark of the changelog's record": ((LAST_KEY,), ()),
    "without any mark": ((OFFSET_KEY, LAST_KEY, SOURCE_KEY), ()),
    "with an offset that is not a number": ((), (OFFSET_KEY,)),
    "with an invalid source mark": ((), (SOURCE_KEY,)),
}


@pytest.mark.parametrize("marks", UNMARKED)
def test_tables_whose_marks_are_missing_or_wrong_are_restored_from_scratch(
    kafka: EmbeddedKafka, tmp_path: Path, marks: str
) -> None:
    """Each partition also gets a row that no worker wrote; the restore must remove this row."""
    env = environment(kafka.bootstrap, tmp_path, standby_replicas=0, allow_unsigned="true")
    with worker_that_folded(env, orders(range(20))) as worker:
        worker.stop()
    before, (missing, wrong) = state_of(env), UNMARKED[marks]
    databases = [*tmp_path.glob("tables/v1/*/*.db")]
    assert len(databases) == len(TABLES) * PARTITIONS
    for path in databases:
        database = Rdict(str(path), Options(raw_mode=True))
        database[b"strange"] = b"row"
        for key in missing:
            del database[key]
        for key in wrong:
            database[key] = b"nonsense"
        database.close()
    with WorkerProcess(env) as worker:
        worker.wait_ready()
        assert state_of(env) == before
        code, printed = verify(env)
        assert code == 0, printed
        worker.stop()
    for path in databases:
        database = Rdict(str(path), Options(raw_mode=True))
        assert b"strange" not in database, path
        database.close()


def test_a_table_that_does_not_say_which_records_it_has_is_folded_again_from_the_first_record(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    """The group's commits are beyond the folded records, so no commit can replace a lost mark."""
    env = environment(kafka.bootstrap, tmp_path, standby_replicas=0, allow_unsigned="true")
    with worker_that_folded(env, orders(range(20))) as worker:
        worker.stop()
    deliver_held(env, range(20, 40), [*TABLES])
    for tp, at in positions(env).items():
        asyncio.run(commit(env, tp, at.end))
    asyncio.run(delete_marks(env))
    shutil.rmtree(tmp_path / "tables")
    with WorkerProcess(env) as worker:
        worker.wait_ready()
        wait_folded(env, worker)
        assert {worker.get(f"/orders/ord_{n}")[0] for n in range(40)} == {200}
        code, printed = verify(env)
        assert code == 0, printed


async def delete_marks(env: dict[str, str]) -> None:
    """Delete the marks of the sources in all changelogs."""
    async with producer(env["LEDGER_KAFKA_BOOTSTRAP"]) as client:
        for table in TABLES:
            for partition in range(PARTITIONS):
                changelog = changelog_name(group_of(env), table)
                await send_to_partition(client, changelog, partition, [OutRecord(SOURCE_KEY, None)])
