"""The disk under a worker's tables: whether it has room, and how its errors are explained.

Input: the folder, or an error. Output: nothing, or a message that names the folder and the remedy.
A worker without room for its tables never joins its group: it would keep its partitions from the
other workers, fold nothing, and end, again and again.
"""

import errno
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from aiokafka.errors import KafkaError

if TYPE_CHECKING:
    from processors.tables import ChunkTable

_MIB: Final = 1024 * 1024
_REMEDY: Final = "make room there, and start the worker again: it goes on where it was"


class NoRoomError(OSError):
    """The folder of the tables has too little room; the message says how much it takes."""


class DamagedTableError(Exception):
    """A partition's files do not hold what was written to them; the text says which partition."""

    def __init__(self, table: "ChunkTable", partition: int, detail: str) -> None:
        super().__init__(
            f"partition {partition} of the table {table.name} is damaged: {detail}; its files are "
            "deleted, and the next start restores it from the changelog; check the disk"
        )
        self.table = table
        self.partition = partition
        self.detail = detail


def require_room(folder: Path, least_bytes: int, *, made_in: Path | None = None) -> None:
    """Raise ``NoRoomError`` where less than ``least_bytes`` are free.

    A folder that is not there yet has the room of the one that it will be ``made_in``.
    """
    free = shutil.disk_usage(made_in or folder).free
    if free < least_bytes:
        raise NoRoomError(
            f"LEDGER_DATA_DIR={folder} has {free / _MIB:.1f} MiB free, and the tables' write "
            f"buffers (LEDGER_TABLE_MEMORY_MB) take {least_bytes / _MIB:.1f} MiB: {_REMEDY}"
        )


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield what went wrong, one by one: a group's members, and theirs.

    aiokafka wraps an error that it did not expect while it joins a group.
    """
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from causes(each)
    elif type(error) is KafkaError and error.__cause__ is not None:
        yield from causes(error.__cause__)
    else:
        yield error


def is_of_rocksdb(error: BaseException, status: Literal["IO error", "Corruption"]) -> bool:
    """Return whether RocksDB answered with a status; rocksdict tells it in the text alone."""
    return type(error) is Exception and str(error).startswith(status)


def explain(error: BaseException, folder: Path) -> str:
    """Return an error as one line; one of the disk's names the folder and the remedy."""
    if is_of_rocksdb(error, "IO error"):
        return f"the tables in LEDGER_DATA_DIR={folder} can't be used: {error}; {_REMEDY}"
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EROFS}:
        return f"LEDGER_DATA_DIR={folder} can't be written: {error}; {_REMEDY}"
    return f"{type(error).__name__}: {error}"
