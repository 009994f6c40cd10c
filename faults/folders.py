"""Injects faults into workers' folders: full disks, file limits, copies, damaged and older tables.

A fault lasts until its ``with`` block ends. After that, the folder is usable again, and every copy
of it has been deleted.
"""

import random
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

import httpx
from rocksdict import Options, Rdict

from faults.disk import SmallDisk
from faults.kinds import Inject, Injected
from faults.program import ProgramUnderFault
from faults.refusals import await_end, expect_logged
from faults.stage import FaultStage

DOWN_AT_MOST_S: Final = 60.0
"""The longest wait for other workers to take over a worker's partitions.

The wait is longer than the limit, ``injections.TAKEN_OVER_WITHIN_S``, so that a takeover that
exceeds the limit is still measured.
"""

# A worker may keep running on a full disk for this long, because RocksDB reserves room for its log.
_NOTICED_WITHIN_S: Final = 20.0
_ASK_AGAIN_S: Final = 0.2
# With this limit on open files, Python starts, but no worker can open its databases.
_TOO_FEW_FILES: Final = 100
# If a running worker may open at most this many further files, it may end when it opens a file.
_FEW_MORE_FILES: Final = 10


def exhaust(fill: Callable[[SmallDisk], None], remedy: str, refusal: str) -> Inject:
    """Return a fault that fills a worker's disk: the worker ends, and other workers take over.

    If the running worker ends by itself, it logs ``remedy``. When the worker is restarted on the
    full disk, it ends again and logs ``refusal`` and ``remedy``.
    """

    @contextmanager
    def inject(stage: FaultStage, chance: random.Random) -> Iterator[Injected]:
        worker, disk = _with_disk(stage, chance)
        worker.expect_end()
        fill(disk)
        if worker.wait_ended(_NOTICED_WITHIN_S):
            expect_logged(stage, worker, "LEDGER_DATA_DIR", remedy)
        else:
            worker.kill()
        since_s = time.monotonic()
        worker.start_in_vain()
        await_end(stage, worker, refusal, remedy)
        yield Injected((worker.label,), DOWN_AT_MOST_S, take_over=True, since_s=since_s)
        disk.make_room()
        worker.start()

    return inject


@contextmanager
def damage_table(stage: FaultStage, chance: random.Random) -> Iterator[Injected]:
    """Damage one table of a stopped worker.

    The worker's next start reports the damage and deletes the damaged folder. The start after that
    restores the table from its changelog.
    """
    worker = chance.choice(stage.workers)
    worker.stop()
    folder = chance.choice(sorted((worker.folder / "tables").rglob("*.db")))
    pattern, damage = chance.choice(_DAMAGES)
    with closing(Rdict(str(folder), Options(raw_mode=True))) as db:
        # In a short run, RocksDB may have all rows in memory, so it must write them to a file now.
        db.flush()
        db.compact_range(None, None)
    files = sorted(folder.glob(pattern))
    if files:
        damage(files[0])
        worker.start_in_vain()
        _have_the_disk_checked(worker)
        await_end(stage, worker, "DamagedTableError", "is deleted")
    yield Injected((worker.label,), 0.0)
    worker.start()


def _have_the_disk_checked(worker: ProgramUnderFault) -> None:
    """Once a worker is ready, ask it to check its disk; the worker may end before it is ready."""
    deadline = time.monotonic() + DOWN_AT_MOST_S
    while not worker.wait_ended(_ASK_AGAIN_S) and time.monotonic() < deadline:
        if worker.not_ready() is None:
            with suppress(httpx.HTTPError):
                if httpx.get(f"{worker.url}/tables?scrub=true", trust_env=False).is_success:
                    return


def _flip_a_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[20] ^= 1
    file.write_bytes(content)


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


_DAMAGES: Final[tuple[tuple[str, Callable[[Path], None]], ...]] = (
    ("*.sst", _flip_a_byte),
    ("*.sst", Path.unlink),
    ("MANIFEST-*", _cut),
    ("CURRENT", Path.unlink),
)


@contextmanager
def run_copy(stage: FaultStage, chance: random.Random) -> Iterator[Injected]:
    """Start a second worker on a copy of a worker's folder; the first worker ends and logs why."""
    worker = chance.choice(stage.workers)
    twin = stage.twin_of(worker)
    # A frozen worker does not change its folder, so the copy is consistent.
    worker.freeze()
    shutil.copytree(worker.folder, twin.folder, dirs_exist_ok=True)
    worker.expect_end()
    worker.go_on()
    twin.start_in_vain()
    await_end(stage, worker, "TakenNameError", "LEDGER_DATA_DIR")
    yield Injected((worker.label,), chance.uniform(0.0, 5.0))
    twin.kill()
    shutil.rmtree(twin.folder)
    worker.start()


@contextmanager
def restore_older_tables(stage: FaultStage, chance: random.Random) -> Iterator[Injected]:
    """Replace a worker's tables with a copy that is seconds old, as if its disk was restored."""
    worker = chance.choice(stage.workers)
    tables, copy = worker.folder / "tables", stage.folder / "older-tables"
    # A frozen worker does not change its folder, so the copy is consistent.
    worker.freeze()
    shutil.copytree(tables, copy)
    worker.go_on()
    time.sleep(chance.uniform(2.0, 10.0))
    since_s = time.monotonic()
    worker.kill()
    shutil.rmtree(tables)
    shutil.copytree(copy, tables)
    shutil.rmtree(copy)
    yield Injected((worker.label,), chance.choice([0.0, 0.0, 15.0]), since_s=since_s)
    worker.start()


@contextmanager
def make_read_only(stage: FaultStage, chance: random.Random) -> Iterator[Injected]:
    """Make a stopped worker's disk read-only: the worker can't start, and others take over."""
    worker, disk = _with_disk(stage, chance)
    worker.stop()
    since_s = time.monotonic()
    with disk.read_only():
        worker.start_in_vain()
        await_end(stage, worker, "LEDGER_DATA_DIR", "mount the folder's file system writable")
        yield Injected((worker.label,), DOWN_AT_MOST_S, take_over=True, since_s=since_s)
    worker.start()


@contextmanager
def lower_file_limit(stage: FaultStage, chance: random.Random) -> Iterator[Injected]:
    """Lower a worker's limit on open files: the worker can't restart, and others take over.

    At first, the running worker may open only a few more files. The worker ends if it needs more
    files; otherwise it keeps running. In both cases, it is then killed, and restarted with a limit
    that is too low for any worker.
    """
    worker = chance.choice(stage.workers)
    worker.expect_end()
    worker.limit_files(worker.open_files() + chance.randint(0, _FEW_MORE_FILES))
    if worker.wait_ended(chance.uniform(2.0, 12.0)):
        expect_logged(stage, worker, "limit on open files")
    worker.kill()
    since_s = time.monotonic()
    worker.start_in_vain()
    worker.limit_files(_TOO_FEW_FILES)
    await_end(stage, worker, "raise the limit on open files")
    yield Injected((worker.label,), DOWN_AT_MOST_S, take_over=True, since_s=since_s)
    worker.start()


def _with_disk(stage: FaultStage, chance: random.Random) -> tuple[ProgramUnderFault, SmallDisk]:
    """Return a random worker that has its own disk, and that disk."""
    disks = [(worker, worker.disk) for worker in stage.workers if worker.disk]
    return chance.choice(disks)
