"""Checks that a worker's folder is writable and has room, and that no other worker uses it.

The checks create no file and no folder.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psutil

from cli.doctor.checks import CheckResult, Patient, ok, problem, problem_of, warning
from cli.doctor.ports import answers
from cli.ports import base_url
from processors.engine.databases import write_buffers_bytes
from processors.engine.disk import NoRoomError, require_room, row_files
from processors.engine.identity import claim_file, is_claimed
from processors.settings import WorkerSettings

_MIB: Final = 1024 * 1024
# In this folder, Faust keeps the tables of an app whose version is 1; `LedgerApp` always has this
# version.
_TABLES: Final = Path("tables") / "v1"


def check_folders(patient: Patient) -> Iterator[CheckResult]:
    """Check LEDGER_DATA_DIR, if one of the programs to check keeps tables there."""
    if not patient.readers("LEDGER_STANDBY_REPLICAS"):
        return
    settings = WorkerSettings.from_environment(patient.environment)
    yield from _writable(settings)
    yield from _owner(settings)
    yield from _others(settings, patient)


def _writable(settings: WorkerSettings) -> Iterator[CheckResult]:
    folder = settings.data_dir.absolute()
    existing = next(each for each in (folder, *folder.parents) if each.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        yield problem(
            f"LEDGER_DATA_DIR={folder} {_obstacle(folder, existing)}",
            "give the user write access (in a container, give it to the volume's group), or choose "
            "another folder",
        )
        return
    try:
        write_buffers = write_buffers_bytes(settings.table_memory_mb)
        require_room(settings, write_buffers, made_in=existing)
        row_files(settings.databases)
    except NoRoomError as error:
        yield problem_of(error.fault)
    else:
        free = shutil.disk_usage(existing).free / _MIB
        made = "" if existing == folder else " after it is created"
        yield ok(f"LEDGER_DATA_DIR={folder} can be written{made}; {free:,.0f} MiB are free")


def _obstacle(folder: Path, existing: Path) -> str:
    if existing == folder:
        return "can't be written by this user"
    if existing.is_dir():
        return f"can't be created, because this user can't write to {existing}"
    return f"can't be created, because {existing} is not a folder"


def _owner(settings: WorkerSettings) -> Iterator[CheckResult]:
    folder = settings.data_dir
    if not folder.is_dir() or not is_claimed(folder):
        return
    what = f"LEDGER_DATA_DIR={folder} belongs to a running worker{_pid(folder)}"
    remedy = "stop that worker, or give this worker a different folder"
    if answers(base_url(settings.web_bind, settings.web_port)):
        yield warning(
            f"{what}, and a worker answers at LEDGER_WEB_PORT",
            f"do nothing if this is the intended worker; otherwise {remedy}",
        )
    else:
        yield problem(what, remedy)


def _pid(folder: Path) -> str:
    """Return the id of the process that uses the folder, or "" if this user may not see the id."""
    claim = str(claim_file(folder))
    for process in psutil.process_iter():
        try:
            if any(file.path == claim for file in process.open_files()):
                return f" (pid {process.pid})"
        except (psutil.Error, OSError):
            continue  # the process belongs to another user, or has just ended
    return ""


def _others(settings: WorkerSettings, patient: Patient) -> Iterator[CheckResult]:
    """Find tables that a worker with these settings does not read."""
    tables = settings.data_dir / _TABLES
    for folder in sorted(tables.iterdir()) if tables.is_dir() else ():
        group, _, cluster = folder.name.partition("@")
        known = {settings.of_version(n).group_id for n in range(1, settings.version + 1)}
        if group not in known:
            yield _unused(folder, f"the group {group}, but these settings use {settings.group_id}")
        elif patient.cluster and cluster != patient.cluster.cluster_id:
            found = patient.cluster.cluster_id
            yield _unused(folder, f"the Kafka cluster {cluster}, but {found} answers")


def _unused(folder: Path, owner: str) -> CheckResult:
    return warning(
        f"{folder} has {_bytes(folder) / _MIB:,.1f} MiB of tables of {owner}",
        "if these settings are right and that ledger is gone, delete the folder: nothing reads it",
    )


def _bytes(folder: Path) -> int:
    total = 0
    for file in folder.rglob("*"):
        # A program may delete a file between the listing and this call.
        with contextlib.suppress(FileNotFoundError):
            total += file.lstat().st_size
    return total
