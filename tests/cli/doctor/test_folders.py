"""The check of the worker's folder reports every obstacle, and creates no files."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.doctor.checks import Cluster, Level
from cli.doctor.folders import check_folders
from tests.cli.doctor.conftest import one, only, with_settings
from tests.fakes import claimed_elsewhere

NOBODY = 65534
AS_NOBODY = """
import os, sys
from pathlib import Path
os.environ["LEDGER_DATA_DIR"] = sys.argv[1]
from cli.doctor.checks import Patient
from cli.doctor.folders import check_folders
if os.geteuid() == 0:
    os.setgid({nobody}), os.setuid({nobody})
for result in check_folders(Patient(os.environ, ("worker",))):
    print(result.level, result.what, result.remedy)
"""


def test_a_missing_folder_that_a_worker_can_create_is_ok_and_is_not_created(patient, tmp_path):
    result = one(Level.OK, check_folders(patient))
    assert "can be written after it is created; " in result.what
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_place_of_the_folder_is_a_problem(patient, tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        result = one(Level.PROBLEM, check_folders(with_settings(patient, data_dir=folder)))
        assert f"LEDGER_DATA_DIR={folder} can't be" in result.what
        assert "choose another folder" in result.remedy


@pytest.fixture
def closed() -> Iterator[Path]:
    """Return a folder that everyone may read, and to which only root may write."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o555)
        yield Path(folder)
        Path(folder).chmod(0o755)


@pytest.mark.parametrize("below", ["", "below"])
def test_a_folder_that_the_user_may_not_write_to_is_a_problem(closed, below):
    """The check does not run as root, because root may write to every folder."""
    folder = closed / below
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY.format(nobody=NOBODY), str(folder)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert line.startswith(f"problem LEDGER_DATA_DIR={folder} can't be ")
    assert "give the user write access" in line


def test_too_little_room_is_a_problem_that_names_the_required_room(patient):
    result = one(
        Level.PROBLEM, check_folders(with_settings(patient, table_memory_mb=10_000_000_000))
    )
    assert "need 2500000000.0 MiB" in result.what
    assert f"LEDGER_DATA_DIR={patient.environment['LEDGER_DATA_DIR']} has " in result.what
    assert "make room there" in result.remedy


def test_a_folder_of_a_running_worker_is_a_problem_that_names_the_process(patient, tmp_path):
    patient = with_settings(patient, data_dir=tmp_path)
    with claimed_elsewhere(tmp_path) as other:
        assert other.stdout
        name = other.stdout.readline().strip()
        before = (tmp_path / "worker-id").stat()
        result = one(Level.PROBLEM, check_folders(patient))
        assert f"belongs to a running worker (pid {other.pid})" in result.what
        assert "give this worker a different folder" in result.remedy
        assert (tmp_path / "worker-id").stat() == before
        other.kill()
    assert only(Level.PROBLEM, check_folders(patient)) == []
    assert (tmp_path / "worker-id").read_text() == name


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("plexy-ledger@here", None),
        ("plexy-ledger@elsewhere", "the Kafka cluster elsewhere, but here answers"),
        ("shop2.plexy-ledger@here", "the group shop2.plexy-ledger"),
        ("plexy-ledger-v2@here", "the group plexy-ledger-v2"),
    ],
)
def test_unused_tables_are_a_warning_that_names_their_size(patient, tmp_path, folder, expected):
    tables = tmp_path / "tables" / "v1" / folder
    tables.mkdir(parents=True)
    (tables / "data").write_bytes(bytes(1024 * 1024))
    patient = with_settings(patient, data_dir=tmp_path)
    patient.cluster = Cluster("here", 1)
    found = only(Level.WARNING, check_folders(patient))
    once = [True] if expected else []
    assert [expected in each.what for each in found] == once
    assert [f"{tables} has 1.0 MiB" in each.what for each in found] == once
    # The tables of earlier versions are not reported, because a rollback needs these tables.
    newer = with_settings(patient, data_dir=tmp_path, version=3)
    warned = bool(only(Level.WARNING, check_folders(newer)))
    assert warned == (bool(expected) and "v2" not in folder)


def test_programs_without_tables_have_no_folder_to_check(patient):
    without_tables = with_settings(patient, "ingest", "topics", data_dir="/dev/null")
    assert list(check_folders(without_tables)) == []
