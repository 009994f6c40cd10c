"""A damaged table is reported and deleted, and the next start restores it from its changelog.

The tests damage the folder of a stopped worker, as a failing disk would.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
from rocksdict import Options, Rdict

from cli.kafka.broker import EmbeddedKafka
from tests.kafka.answers import SECRET, deliver
from tests.kafka.harness import WorkerProcess, environment, wait_folded
from tests.kafka.verification import history, verify

pytestmark = pytest.mark.timeout(240)


def only(folder: Path, pattern: str) -> Path:
    (file,) = folder.glob(pattern)
    return file


def flip_a_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[20] ^= 1
    file.write_bytes(content)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


DAMAGES = [
    ("payments", 0, "*.sst", flip_a_byte),
    ("payments", 1, "*.sst", Path.unlink),
    ("payments", 2, "MANIFEST-*", cut),
    ("payments", 3, "MANIFEST-*", Path.unlink),
    ("orders", 1, "CURRENT", Path.unlink),
]


def damage(folder: Path, pattern: str, how: Callable[[Path], object]) -> None:
    """Compact the table, so that one file has all rows; damage the file that fits the pattern."""
    db = Rdict(str(folder), Options(raw_mode=True))
    db.compact_range(None, None)
    db.close()
    how(only(folder, pattern))


def test_damaged_tables_are_reported_with_their_folders_and_restored_by_the_next_start(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    """Each start reports and deletes one damaged table, so the last start finds no damage."""
    env = environment(kafka.bootstrap, tmp_path / "ledger", webhook_secrets=SECRET)
    expected = set()
    with WorkerProcess(env) as worker:
        worker.wait_ready()
        deliver(env, *history())
        wait_folded(env, worker)
        worker.stop()
        for table, partition, pattern, how in DAMAGES:
            folder = only(tmp_path / "ledger" / "tables", f"**/{table}-{partition}.db")
            damage(folder, pattern, how)
            expected.add((table, partition, folder))
        named = set()
        for _ in DAMAGES:
            worker.start()
            reason = worker.reason_of_end(within_s=60)
            named |= {each for each in expected if says(reason, *each)}
        assert named == expected
        worker.start()
        worker.wait_ready()
        wait_folded(env, worker)
        code, output = verify(env)
        assert code == 0, output


def says(reason: str, table: str, partition: int, folder: Path) -> bool:
    return (
        reason.startswith(f"DamagedTableError: partition {partition} of the table {table}")
        and f"its folder, {folder}, is deleted, and the next start restores it" in reason
    )
