"""An error of the disk names the folder and the remedy; too little room is found at the start."""

import errno
from pathlib import Path

import pytest
from aiokafka.errors import KafkaError

from processors.disk import NoRoomError, causes, explain, require_room
from processors.membership import TakenNameError
from processors.settings import WorkerSettings
from processors.topology import new_app
from processors.worker import Worker

FOLDER = Path("data")


def test_a_folder_with_too_little_room_is_named_with_what_it_takes(tmp_path):
    with pytest.raises(NoRoomError, match=r"take 1125899906842624\.0 MiB: make room") as raised:
        require_room(tmp_path, 2**70)
    assert f"LEDGER_DATA_DIR={tmp_path}" in str(raised.value)
    assert require_room(tmp_path, 1) is None


@pytest.mark.parametrize(
    "error",
    [
        Exception("IO error: No space left on device: While appending to file"),
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EROFS, "Read-only file system"),
    ],
)
def test_an_error_of_the_disk_names_the_folder_and_the_remedy(error):
    told = explain(error, FOLDER)
    assert "LEDGER_DATA_DIR=data" in told
    assert told.endswith("make room there, and start the worker again: it goes on where it was")
    assert "b'" not in told


def test_another_error_is_told_as_it_is():
    assert explain(ConnectionResetError("gone"), FOLDER) == "ConnectionResetError: gone"
    assert explain(ValueError("IO error: x"), FOLDER) == "ValueError: IO error: x"


def test_only_this_user_may_enter_the_folders_of_a_worker(tmp_path):
    data = tmp_path / "data"
    (data / "tables").mkdir(0o755, parents=True)
    new_app(WorkerSettings(data_dir=data), worker_class=Worker, middlewares=[])
    assert (data / "tables").stat().st_mode & 0o777 == 0o700
    new_app(WorkerSettings(data_dir=tmp_path / "new"), worker_class=Worker, middlewares=[])
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


def test_of_a_group_each_cause_is_told():
    one, two, three = ValueError("1"), OSError("2"), KeyError("3")
    assert list(causes(ExceptionGroup("", [one, ExceptionGroup("", [two, three])]))) == [
        one,
        two,
        three,
    ]
    assert list(causes(one)) == [one]


def test_an_error_that_kafka_s_client_wrapped_while_it_joined_is_told_itself():
    wrapped = KafkaError("Unexpected error during coordination")
    wrapped.__cause__ = TakenNameError("taken")
    assert list(causes(wrapped)) == [wrapped.__cause__]
    other = KafkaError("alone")
    assert list(causes(other)) == [other]
