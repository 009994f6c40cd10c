"""A disk error names the folder and the remedy; too little disk space is detected at start-up."""

import errno
import os
import resource
from pathlib import Path
from types import SimpleNamespace

import pytest
from aiokafka.errors import KafkaError

from processors.engine.disk import NoRoomError, causes, explain, is_damage, require_room, row_files
from processors.engine.membership import TakenNameError
from processors.settings import WorkerSettings
from processors.topology import new_app
from processors.worker import Worker

FOLDER = Path("data")


def test_a_folder_with_too_little_room_is_reported_with_the_required_room(tmp_path):
    settings = WorkerSettings(data_dir=tmp_path)
    with pytest.raises(NoRoomError, match=r"need 1125899906842624\.0 MiB: make room") as raised:
        require_room(settings, 2**70)
    assert f"LEDGER_DATA_DIR={tmp_path}" in str(raised.value)
    assert require_room(settings, 1) is None


def test_a_worker_starts_only_if_there_are_inodes_for_the_new_databases(tmp_path, monkeypatch):
    settings = WorkerSettings(data_dir=tmp_path, partitions=4)
    monkeypatch.setattr("processors.engine.disk._free_inodes", lambda _: 100)
    with pytest.raises(
        NoRoomError, match=r"0 existing and 12 new databases, .* needs 192 files: del"
    ):
        require_room(settings, 1)
    for number in range(12):
        (tmp_path / "tables" / "v1" / "plexy-ledger@kafka" / f"{number}.db").mkdir(parents=True)
    assert require_room(settings, 1) is None


def test_a_limit_on_open_files_that_is_too_low_for_the_partitions_is_reported_with_both_numbers(
    monkeypatch,
):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    assert row_files(12) >= 20
    with pytest.raises(NoRoomError, match="may open 4096 files, and 192 databases") as raised:
        row_files(3 * 64)
    assert "take 5248: raise the limit on open files (`ulimit -n`" in str(raised.value)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, resource.RLIM_INFINITY))
    assert row_files(3 * 64) > 1000


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (Exception("IO error: No space left on device: While appending to file"), "make room"),
        (Exception("IO error: While open: 1.sst: Too many open files"), "raise the limit on"),
        (Exception("Corruption: Corruption: IO error: Too many open files"), "raise the limit on"),
        (Exception("IO error: While mkdir: Permission denied"), "give the worker's user the right"),
        (Exception("IO error: While pread: 1.sst: Input/output error"), "check the disk"),
        (OSError(errno.ENOSPC, "No space left on device"), "make room there, and start"),
        (OSError(errno.EROFS, "Read-only file system"), "mount the folder's file system writable"),
    ],
)
def test_a_disk_error_names_the_folder_and_the_remedy(error, remedy, tmp_path):
    explained = explain(error, tmp_path)
    assert f"LEDGER_DATA_DIR={tmp_path}" in explained
    assert explained.rpartition("; ")[2].startswith(remedy)
    assert not is_damage(error)


def test_the_remedy_for_a_disk_that_has_no_free_inodes_is_to_delete_files(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_files=9, f_favail=0))
    explained = explain(OSError(errno.ENOSPC, "No space left on device"), tmp_path)
    assert explained.endswith(
        "there is no inode left for a new file: delete files there, or use a "
        "file system with more inodes"
    )


@pytest.mark.parametrize(
    "text",
    [
        "Corruption: block checksum mismatch",
        "Corruption: Corruption: IO error: No such file or directory: While open a file",
        "IO error: No such file or directory: While opening a file for sequentially reading",
    ],
)
def test_lost_or_altered_files_are_reported_as_damage_to_the_table(text):
    assert is_damage(Exception(text))
    assert not is_damage(ValueError(text))


def test_any_other_error_is_reported_unchanged():
    assert explain(ConnectionResetError("gone"), FOLDER) == "ConnectionResetError: gone"
    assert explain(ValueError("IO error: x"), FOLDER) == "ValueError: IO error: x"


def test_only_the_workers_user_may_enter_the_folders_of_a_worker(tmp_path):
    data = tmp_path / "data"
    (data / "tables").mkdir(0o755, parents=True)
    new_app(WorkerSettings(data_dir=data), worker_class=Worker, middlewares=[])
    assert (data / "tables").stat().st_mode & 0o777 == 0o700
    new_app(WorkerSettings(data_dir=tmp_path / "new"), worker_class=Worker, middlewares=[])
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


def test_each_error_of_an_exception_group_is_reported():
    one, two, three = ValueError("1"), OSError("2"), KeyError("3")
    assert list(causes(ExceptionGroup("", [one, ExceptionGroup("", [two, three])]))) == [
        one,
        two,
        three,
    ]
    assert list(causes(one)) == [one]


def test_if_kafkas_client_wraps_an_error_while_it_joins_the_group_the_error_is_unwrapped():
    wrapped = KafkaError("Unexpected error during coordination")
    wrapped.__cause__ = TakenNameError("taken")
    assert list(causes(wrapped)) == [wrapped.__cause__]
    other = KafkaError("alone")
    assert list(causes(other)) == [other]
