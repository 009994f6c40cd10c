"""Checks that the disk has room for a worker's tables, and explains disk errors.

A worker that has no room for its tables does not join its group. If it joined, it would take
partitions from the other workers, fail, restart, and take the partitions again.
"""

import errno
import glob
import os
import resource
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from types import MappingProxyType
from typing import Final, Protocol

from aiokafka.errors import InvalidTimestampError, KafkaError

from runtime.fault import Fault
from runtime.folders import private_folder
from runtime.kafka.topic_states import TIME_REFUSED
from runtime.settings import SettingsError


class _TableSettings(Protocol):
    """The worker's settings that determine its databases and their folder."""

    @property
    def data_dir(self) -> Path:
        """The folder of the tables."""

    @property
    def group_id(self) -> str:
        """The worker's group."""

    @property
    def databases(self) -> int:
        """The number of databases, one for each table and partition."""


_MIB: Final = 1024 * 1024
_REMEDY: Final = "make room there, and start the worker again: it continues where it stopped"
_MAKE_FILES: Final = "delete files there, or use a file system with more inodes"
_MORE_FILES: Final = (
    "raise the limit on open files (`ulimit -n`, `LimitNOFILE=` of systemd, `ulimits` of a "
    "container), or choose a lower LEDGER_PARTITIONS for a new ledger"
)
_CHECK: Final = "check the disk, and start the worker again"

# The remedies for system errors that leave the tables' files intact, by error number.
_REMEDIES: Final[Mapping[int, str]] = MappingProxyType(
    {
        errno.ENOSPC: _REMEDY,
        errno.EDQUOT: _REMEDY,
        errno.EROFS: "mount the folder's file system writable, and start the worker again",
        errno.EACCES: "give the worker's user the right to read and write there",
        errno.EPERM: "give the worker's user the right to read and write there",
        errno.EMFILE: _MORE_FILES,
        errno.ENFILE: _MORE_FILES,
        errno.EIO: _CHECK,
        errno.ENOMEM: "give the worker more memory, or lower LEDGER_TABLE_MEMORY_MB",
    }
)
# Only the disk causes these errors. A connection may cause any of the other errors in
# ``_REMEDIES``.
_OF_THE_DISK: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})

# Besides its files of rows, a database keeps six files open: its two folders, LOCK, LOG, MANIFEST
# and the write-ahead log.
_FILES_OF_A_DATABASE: Final = 6
# RocksDB accepts no lower limit on the files of rows that a database keeps open.
_LEAST_ROW_FILES: Final = 20
# A new database creates this many files, including its first files of rows.
_NEW_FILES_OF_A_DATABASE: Final = 16
# RocksDB creates five files when it opens an existing database: LOG, a write-ahead log, a manifest,
# a file of options, and a file with the rows of the former write-ahead log.
_NEW_FILES_OF_A_START: Final = 5
# This many open files are reserved for connections, libraries and the program's log output.
_OTHER_FILES: Final = 256
# A worker never needs more open files than this, so its limit is not raised beyond this number,
# even in a container that allows a billion.
_ENOUGH_FILES: Final = 2**20


class NoRoomError(OSError):
    """The disk has too little room, or too few files may be open; ``fault`` states the numbers."""

    def __init__(self, what: str, remedy: str) -> None:
        self.fault = Fault(what, remedy)
        super().__init__(str(self.fault))


def require_room(
    settings: _TableSettings, least_bytes: int, *, made_in: Path | None = None
) -> None:
    """Raise ``NoRoomError`` if less than ``least_bytes`` or too few inodes are free.

    If the data folder does not exist yet, ``made_in`` is the existing folder in which it will be
    created.
    """
    folder = settings.data_dir
    free = shutil.disk_usage(made_in or folder).free
    if free < least_bytes:
        raise NoRoomError(
            f"LEDGER_DATA_DIR={folder} has {free / _MIB:.1f} MiB free, and the tables' write "
            f"buffers (LEDGER_TABLE_MEMORY_MB) need {least_bytes / _MIB:.1f} MiB",
            _REMEDY,
        )
    inodes = _free_inodes(made_in or folder)
    made = _databases_made(settings)
    new = max(settings.databases - made, 0)
    least = new * _NEW_FILES_OF_A_DATABASE + made * _NEW_FILES_OF_A_START
    if inodes is not None and inodes < least:
        raise NoRoomError(
            f"LEDGER_DATA_DIR={folder} can take {inodes} more files (inodes). A start with {made} "
            f"existing and {new} new databases, one for each table and partition, needs "
            f"{least} files",
            _MAKE_FILES,
        )


def _databases_made(settings: _TableSettings) -> int:
    """Return the number of databases that the group already has in the data folder.

    If the folder has tables of several Kafka clusters, return the number for the cluster with the
    most databases.
    """
    of_each_kafka = (settings.data_dir / "tables").glob(f"v1/{glob.escape(settings.group_id)}@*")
    return max((len(list(each.glob("*.db"))) for each in of_each_kafka), default=0)


def writable_folder(data_dir: Path) -> Path:
    """Return the folder of the tables; create the folder if it does not exist.

    Raise ``SettingsError`` if the program's user can't write to the folder.
    """
    try:
        tables = private_folder(data_dir / "tables")
        # Root has the right to write anywhere, so only a real write shows that a file system is
        # mounted read-only.
        for folder in (data_dir, tables):
            TemporaryFile(dir=folder).close()
    except OSError as error:
        number = error.errno or 0
        what = f"[Errno {number}] {os.strerror(number)}: {error.filename!r}"
        remedy = _remedy(number, data_dir) if number in _REMEDIES else "choose another folder"
        raise SettingsError(
            f"LEDGER_DATA_DIR={data_dir} can't be written: {what}; {remedy}"
        ) from None
    return tables


def row_files(databases: int) -> int:
    """Return how many files of rows each database may keep open.

    At this limit, RocksDB closes one file before it opens the next file. Raise ``NoRoomError`` if
    the number is below the lowest limit that RocksDB accepts.
    """
    allowed = _allowed_files()
    files = (allowed - _OTHER_FILES) // databases - _FILES_OF_A_DATABASE
    if files < _LEAST_ROW_FILES:
        least = databases * (_FILES_OF_A_DATABASE + _LEAST_ROW_FILES) + _OTHER_FILES
        raise NoRoomError(
            f"this process may open {allowed} files, and {databases} databases, one for each table "
            f"and partition (LEDGER_PARTITIONS), take {least}",
            _MORE_FILES,
        )
    return files


def raise_file_limit() -> None:
    """Raise this process's limit on open files, often 1024, as far as the system allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # macOS may refuse even the limit that it reports.
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (_allowed_files(), hard))


def _allowed_files() -> int:
    limit, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    bounded = _ENOUGH_FILES if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH_FILES)
    return max(limit, bounded)


def _free_inodes(folder: Path) -> int | None:
    """Return how many more files a folder's file system can take; ``None`` if there is no limit.

    If the folder does not exist yet, the file system of its nearest existing parent counts.
    """
    found = os.statvfs(next(each for each in (folder, *folder.absolute().parents) if each.exists()))
    return found.f_favail if found.f_files else None


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors in an exception group, at any depth; yield any other error itself.

    While aiokafka joins a group, it wraps an unexpected error in a ``KafkaError``. In that case,
    the wrapped error is yielded.
    """
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from causes(each)
    elif type(error) is KafkaError and error.__cause__ is not None:
        yield from causes(error.__cause__)
    else:
        yield error


def is_of_rocksdb(error: BaseException) -> bool:
    """Return whether RocksDB raised an error because of its files; only the text shows this."""
    return type(error) is Exception and str(error).startswith(("IO error", "Corruption"))


def is_damage(error: BaseException) -> bool:
    """Return whether a table's files are damaged or missing.

    RocksDB also reports a file as corrupt if it can't open the file, for example because no file
    descriptor is free. In that case, the table is intact, and the result is ``False``.
    """
    lost = str(error).startswith("Corruption") or os.strerror(errno.ENOENT) in str(error)
    return is_of_rocksdb(error) and lost and _cause_in(str(error)) is None


def explain(error: BaseException, folder: Path) -> str:
    """Return an error as one line; the line for a disk error names the folder and the remedy."""
    if is_of_rocksdb(error):
        remedy = _remedy(_cause_in(str(error)), folder)
        return f"the tables in LEDGER_DATA_DIR={folder} can't be used: {error}; {remedy}"
    if isinstance(error, OSError) and _is_of_the_disk(error, folder):
        remedy = _remedy(error.errno, folder)
        return f"LEDGER_DATA_DIR={folder} can't be written: {error}; {remedy}"
    what = TIME_REFUSED if isinstance(error, InvalidTimestampError) else error
    told = f"{type(error).__name__}: {what}"
    if isinstance(error, OSError) and error.errno in {errno.EMFILE, errno.ENFILE}:
        return f"{told}; {_MORE_FILES}"
    return told


def _is_of_the_disk(error: OSError, folder: Path) -> bool:
    """Return whether an error concerns the disk.

    For some error numbers, the error concerns the disk only if its file is in ``folder``.
    """
    name = error.filename
    within = isinstance(name, str) and Path(name).absolute().is_relative_to(folder.absolute())
    return error.errno in _OF_THE_DISK or (within and error.errno in _REMEDIES)


def _cause_in(text: str) -> int | None:
    """Return the number of the system error that RocksDB's text names."""
    return next((number for number in _REMEDIES if os.strerror(number) in text), None)


def _remedy(number: int | None, folder: Path) -> str:
    if number == errno.ENOSPC and _free_inodes(folder) == 0:
        return f"there is no inode left for a new file: {_MAKE_FILES}"
    return _CHECK if number is None else _REMEDIES[number]
