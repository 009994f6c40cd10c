"""The identity of a worker: the folder that it owns, and its name, which is stored in that folder.

The name stays the same after every restart. Two workers never share a folder, so they never share a
name. If two workers had the same name, Kafka would move the partitions back and forth between them.
"""

import fcntl
import time
import uuid
from pathlib import Path
from typing import IO, Final

from runtime.settings import SettingsError

_FILE: Final = "worker-id"
# To check whether a folder is claimed, a process locks the folder's file for less than this time.
_LOOKED_AT_FOR_S: Final = 0.1

# A claim ends when its file is closed, at the latest when the process ends.
_held: dict[Path, IO[str]] = {}


def member(name: str, address: str) -> str:
    """Return a worker's name in its group; the name also depends on the worker's address.

    A member that rejoins gets its former assignment from Kafka, and Faust's assignments contain
    addresses. If the worker's address in the assignment were outdated, Faust's coordinator would
    end silently and nothing would be folded.
    """
    return f"{name}-{uuid.uuid5(uuid.NAMESPACE_URL, address).hex[:8]}"


def claim(folder: Path) -> str:
    """Claim the folder until this process ends; return the worker's name.

    Raise ``SettingsError`` if another process has claimed the folder.
    """
    path = claim_file(folder)
    file = _held.get(path) or path.open("a+")
    if not _lock(file):
        file.close()
        raise SettingsError(
            f"LEDGER_DATA_DIR={folder} belongs to a running worker: stop that worker, or give this "
            "worker a different folder"
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
    """Return the file that the folder's worker keeps open."""
    return (folder / _FILE).resolve()


def is_claimed(folder: Path) -> bool:
    """Return whether a running worker has claimed the folder; nothing is written to the folder."""
    try:
        with claim_file(folder).open() as file:
            # The lock is shared, so that several processes can check at the same time. Closing the
            # file releases the lock.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def _lock(file: IO[str]) -> bool:
    """Lock the file; retry once, because another process may be checking the folder."""
    for pause_s in (_LOOKED_AT_FOR_S, 0.0):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(pause_s)
        else:
            return True
    return False
