"""Injects faults into workers' folders: no room, no inodes, a damaged table, or a copied folder.

A fault lasts as long as its block. After the block, the folder is usable, and any copy is deleted.
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
from faults.stage import FaultStage

DOWN_AT_MOST_S: Final = 60.0
"""The time for others to take over a worker's partitions, longer than the judged limit."""

# A worker may run on a full disk for this long, because RocksDB reserves room for its log.
_NOTICED_WITHIN_S: Final = 20.0
_REFUSED_WITHIN_S: Final = 20.0
# A worker may take this long to start and to find the damage.
_FOUND_WITHIN_S: Final = 60.0
_POLL_S: Final = 0.2


def exhaust(fill: Callable[[SmallDisk], None], remedy: str, refusal: str) -> Inject:
    """Return a fault that fills a disk: a worker ends and can't restart, and others take over.

    A running worker that fails logs ``remedy``. A worker that then starts logs ``refusal`` as well.
    """

    @contextmanager
    def inject(stage: FaultStage, chance: random.Random) -> Iterator[Injected]:
        worker = chance.choice([worker for worker in stage.workers if worker.disk])
        disk = worker.disk
        if disk is None:
            raise ValueError(f"{worker.label} has no disk of its own")
        worker.expect_end()
        fill(disk)
        if worker.wait_ended(_NOTICED_WITHIN_S):
            _expect_logged(stage, worker, "LEDGER_DATA_DIR", remedy)
        else:
            worker.kill()
        since_s = time.monotonic()
        worker.start_in_vain()
        if worker.wait_ended(_REFUSED_WITHIN_S):
            _expect_logged(stage, worker, refusal, remedy)
        else:
            stage.findings.append(f"{worker.label} runs on a full disk")
            worker.kill()
        yield Injected((worker.label,), DOWN_AT_MOST_S, take_over=True, since_s=since_s)
        disk.make_room()
        worker.start()

    return inject


@contextmanager
def damage_table(stage: FaultStage, chance: random.Random) -> Iterator[Injected]:
    """Damage a stopped worker's table: the next start reports it, and a second start repairs it."""
    worker = chance.choice(stage.workers)
    worker.stop()
    folder = chance.choice(sorted((worker.folder / "tables").rglob("*.db")))
    pattern, damage = chance.choice(_DAMAGES)
    with closing(Rdict(str(folder), Options(raw_mode=True))) as db:
        # Write all rows to a file, because RocksDB may not have written any file in a short run.
        db.flush()
        db.compact_range(None, None)
    files = sorted(folder.glob(pattern))
    if files:
        damage(files[0])
        worker.start_in_vain()
        if _ends(worker):
            _expect_logged(stage, worker, "DamagedTableError", "is deleted")
        else:
            stage.findings.append(f"{worker.label} runs with a damaged table, {files[0]}")
            worker.kill()
    yield Injected((worker.label,), 0.0)
    worker.start()


def _ends(worker: ProgramUnderFault) -> bool:
    """Return whether a worker ends by itself; have it check its disk as soon as it is ready."""
    deadline = time.monotonic() + _FOUND_WITHIN_S
    asked = False
    while not worker.wait_ended(_POLL_S):
        if time.monotonic() > deadline:
            return False
        if not asked and worker.not_ready() is None:
            # The worker may have ended in the meantime.
            with suppress(httpx.HTTPError):
                asked = httpx.get(f"{worker.url}/tables?scrub=true", trust_env=False).is_success
    return True


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
    """Start a second worker on a copy of a worker's folder: the first worker ends, and logs why."""
    worker = chance.choice(stage.workers)
    twin = stage.twin_of(worker)
    # A frozen worker does not change its folder, so the copy is consistent.
    worker.freeze()
    shutil.copytree(worker.folder, twin.folder, dirs_exist_ok=True)
    worker.expect_end()
    worker.go_on()
    twin.start_in_vain()
    if worker.wait_ended(_FOUND_WITHIN_S):
        _expect_logged(stage, worker, "TakenNameError", "LEDGER_DATA_DIR")
    else:
        stage.findings.append(f"{worker.label} keeps running next to a worker of the same name")
        worker.kill()
    yield Injected((worker.label,), chance.uniform(0.0, 5.0))
    twin.kill()
    shutil.rmtree(twin.folder)
    worker.start()


def _expect_logged(stage: FaultStage, worker: ProgramUnderFault, *words: str) -> None:
    """Add a finding if a worker ended without logging the reason."""
    if not any(all(word in line for word in words) for line in worker.last_lines):
        lines = "\n".join(worker.last_lines[-10:])
        stage.findings.append(
            f"{worker.label} {worker.ended()}, and did not log {' and '.join(words)}:\n{lines}"
        )
