"""Which worker this is: it has a folder of its own, and its name stands there.

In: the folder. Out: the name, the same after every restart. Never: two workers with one folder, and
so never two with one name: Kafka would give each the other's partitions, in turn.
"""

import fcntl
import time
import uuid
from pathlib import Path
from typing import IO, Final

from runtime.settings import SettingsError

_FILE: Final = "worker-id"
# Who only looks whether a folder is claimed holds it for less than that.
_LOOKED_AT_FOR_S: Final = 0.1

# A claim ends when its file is closed: with the process, however that ends.
_held: dict[Path, IO[str]] = {}


def member(name: str, address: str) -> str:
    """Return what a worker is called in its group: at another address it is another member.

    Kafka gives a member that comes again the assignment that it had, and Faust's has the address in
    it: on another one than its own, Faust's coordinator ends, in silence, and nothing is folded.
    """
    return f"{name}-{uuid.uuid5(uuid.NAMESPACE_URL, address).hex[:8]}"


def claim(folder: Path) -> str:
    """Take the folder for as long as this process lives; return the name of its worker.

    Raises ``SettingsError`` if another process has it.
    """
    path = claim_file(folder)
    file = _held.get(path) or path.open("a+")
    if not _lock(file):
        file.close()
        raise SettingsError(
            f"LEDGER_DATA_DIR={folder} belongs to a worker that runs: stop that one, or give this "
            "one a folder of its own"
        )
    _held[path] = file
    file.seek(0)
    name = file.read().strip()
    if not name:
        name = uuid.uuid4().hex
        file.write(name)
        file.flush()
    return name


def claim_file(folder: Path) -> Path:
    """Return the file that the worker which has the folder holds open."""
    return (folder / _FILE).resolve()


def is_claimed(folder: Path) -> bool:
    """Return whether a worker that runs has the folder; writes nothing there."""
    try:
        with claim_file(folder).open() as file:
            # Shared: others may look at the same time. Closing the file gives it back.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def _lock(file: IO[str]) -> bool:
    """Take the file; once more a moment later, as somebody may just be looking at it."""
    for pause_s in (_LOOKED_AT_FOR_S, 0.0):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(pause_s)
        else:
            return True
    return False
