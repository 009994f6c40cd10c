"""The folder of a worker: may it write there, is there room, does another one have it.

In: the worker's settings. Out: findings. Never: a file or folder that is made to find out.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psutil

from cli.doctor.findings import Finding, Patient, ok, problem, warning
from cli.doctor.ports import answers
from cli.ports import base_url
from processors.engine.databases import write_buffers_bytes
from processors.engine.disk import NoRoomError, require_room, row_files
from processors.engine.identity import claim_file, is_claimed
from processors.settings import WorkerSettings

_MIB: Final = 1024 * 1024
# Faust's own folder for version 1 of an app: see `LedgerApp`.
_TABLES: Final = Path("tables") / "v1"


def check_folders(patient: Patient) -> Iterator[Finding]:
    """Look at LEDGER_DATA_DIR, if any of the programs keeps tables there."""
    if not patient.readers("LEDGER_STANDBY_REPLICAS"):
        return
    settings = WorkerSettings.from_environment(patient.environment)
    yield from _writable(settings)
    yield from _owner(settings)
    yield from _others(settings, patient)


def _writable(settings: WorkerSettings) -> Iterator[Finding]:
    folder = settings.data_dir.absolute()
    there = next(each for each in (folder, *folder.parents) if each.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        why = "can't be written" if there == folder else f"can't be made: {there} can't be written"
        yield problem(
            f"LEDGER_DATA_DIR={folder} {why} by this user",
            "give the user the right to (in a container: the volume's group), or choose another "
            "folder",
        )
        return
    try:
        write_buffers = write_buffers_bytes(settings.table_memory_mb)
        require_room(settings, write_buffers, made_in=there)
        row_files(settings.databases)
    except NoRoomError as error:
        what, _, remedy = str(error).partition(": ")
        yield problem(what, remedy)
    else:
        free = shutil.disk_usage(there).free / _MIB
        made = "" if there == folder else ", will be made"
        yield ok(f"LEDGER_DATA_DIR={folder} can be written{made}, {free:,.0f} MiB are free")


def _owner(settings: WorkerSettings) -> Iterator[Finding]:
    folder = settings.data_dir
    if not folder.is_dir() or not is_claimed(folder):
        return
    what = f"LEDGER_DATA_DIR={folder} belongs to a worker that runs{_pid(folder)}"
    remedy = "stop that one, or give this one a folder of its own"
    if answers(base_url(settings.web_bind, settings.web_port)):
        yield warning(
            f"{what}, and one answers at LEDGER_WEB_PORT",
            f"nothing, if that is this one; else {remedy}",
        )
    else:
        yield problem(what, remedy)


def _pid(folder: Path) -> str:
    """Return who has the folder, as far as this user may know."""
    held = str(claim_file(folder))
    for process in psutil.process_iter():
        try:
            if any(file.path == held for file in process.open_files()):
                return f" (pid {process.pid})"
        except (psutil.Error, OSError):
            continue  # another user's, or it has just ended
    return ""


def _others(settings: WorkerSettings, patient: Patient) -> Iterator[Finding]:
    """Look for tables that no worker with these settings would find."""
    tables = settings.data_dir / _TABLES
    for folder in sorted(tables.iterdir()) if tables.is_dir() else ():
        group, _, cluster = folder.name.partition("@")
        known = {settings.of_version(n).group_id for n in range(1, settings.version + 1)}
        if group not in known:
            yield _lying_about(
                folder, f"the group {group}, and these settings are those of {settings.group_id}"
            )
        elif patient.cluster and cluster != patient.cluster.cluster_id:
            yield _lying_about(
                folder, f"the Kafka {cluster}, and {patient.cluster.cluster_id} answers"
            )


def _lying_about(folder: Path, whose: str) -> Finding:
    return warning(
        f"{folder} has {_bytes(folder) / _MIB:,.1f} MiB of tables of {whose}",
        "if these settings are right, and that ledger is gone, delete the folder: nobody reads it",
    )


def _bytes(folder: Path) -> int:
    total = 0
    for file in folder.rglob("*"):
        # Somebody may be at work there after all.
        with contextlib.suppress(FileNotFoundError):
            total += file.lstat().st_size
    return total
