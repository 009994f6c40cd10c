"""A damaged table is named, set aside and restored from its changelog, with any kind of damage.

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

TABLE, PARTITION = "payments", 1


@pytest.fixture
def env(kafka: EmbeddedKafka, tmp_path: Path) -> dict[str, str]:
    return environment(kafka.bootstrap, tmp_path / "ledger", webhook_secrets=SECRET)


def only(folder: Path, pattern: str) -> Path:
    (file,) = folder.glob(pattern)
    return file


def flip_a_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[20] ^= 1
    file.write_bytes(content)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize(
    ("pattern", "how"),
    [
        ("*.sst", flip_a_byte),
        ("*.sst", Path.unlink),
        ("MANIFEST-*", cut),
        ("MANIFEST-*", Path.unlink),
        ("CURRENT", Path.unlink),
    ],
)
def test_a_damaged_table_is_named_with_its_folder_and_restored_by_the_next_start(
    env: dict[str, str], pattern: str, how: Callable[[Path], object]
) -> None:
    with WorkerProcess(env) as worker:
        worker.wait_ready()
        deliver(env, *history())
        wait_folded(env, worker)
        worker.stop()
        folder = only(Path(env["LEDGER_DATA_DIR"]) / "tables", f"**/{TABLE}-{PARTITION}.db")
        # Write all rows to one file.
        db = Rdict(str(folder), Options(raw_mode=True))
        db.compact_range(None, None)
        db.close()
        how(only(folder, pattern))
        worker.start()
        reason = worker.reason_of_end(within_s=60)
        assert reason.startswith(f"DamagedTableError: partition {PARTITION} of the table {TABLE}")
        assert f"its folder, {folder}, is deleted, and the next start restores it" in reason
        worker.start()
        worker.wait_ready()
        wait_folded(env, worker)
        code, output = verify(env)
        assert code == 0, output
