"""The worker's folder: that it can't be used is named, and nothing is made to find that out."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.doctor.findings import Cluster, Level
from cli.doctor.folders import check_folders
from tests.cli.doctor.conftest import one, only, with_settings
from tests.fakes import claimed_elsewhere

NOBODY = 65534
AS_NOBODY = """
import os, sys
from pathlib import Path
os.environ["LEDGER_DATA_DIR"] = sys.argv[1]
from cli.doctor.findings import Patient
from cli.doctor.folders import check_folders
if os.geteuid() == 0:
    os.setgid({nobody}), os.setuid({nobody})
for finding in check_folders(Patient(os.environ, ("worker",))):
    print(finding.level, finding.what, finding.remedy)
"""


def test_a_folder_that_will_be_made_is_well_and_is_not_made(patient, tmp_path):
    finding = one(Level.OK, check_folders(patient))
    assert "can be written, will be made" in finding.what
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_its_place_is_named(patient, tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        finding = one(Level.PROBLEM, check_folders(with_settings(patient, data_dir=folder)))
        assert f"LEDGER_DATA_DIR={folder} can't be" in finding.what
        assert "choose another folder" in finding.remedy


@pytest.fixture
def closed() -> Iterator[Path]:
    """Return a folder that everybody sees and nobody but root may write."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o555)
        yield Path(folder)
        Path(folder).chmod(0o755)


@pytest.mark.parametrize("below", ["", "below"])
def test_a_folder_that_this_user_may_not_write_is_named(closed, below):
    """As another user than root, to whom no folder is closed."""
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
    assert "give the user the right to" in line


def test_too_little_room_is_named_with_what_it_takes(patient):
    finding = one(
        Level.PROBLEM, check_folders(with_settings(patient, table_memory_mb=10_000_000_000))
    )
    assert "take 2500000000.0 MiB" in finding.what
    assert f"LEDGER_DATA_DIR={patient.environment['LEDGER_DATA_DIR']} has " in finding.what
    assert "make room there" in finding.remedy


def test_a_folder_of_a_worker_that_runs_is_named_with_its_process(patient, tmp_path):
    patient = with_settings(patient, data_dir=tmp_path)
    with claimed_elsewhere(tmp_path) as other:
        assert other.stdout
        name = other.stdout.readline().strip()
        before = (tmp_path / "worker-id").stat()
        finding = one(Level.PROBLEM, check_folders(patient))
        assert f"belongs to a worker that runs (pid {other.pid})" in finding.what
        assert "give this one a folder of its own" in finding.remedy
        assert (tmp_path / "worker-id").stat() == before
        other.kill()
    assert only(Level.PROBLEM, check_folders(patient)) == []
    assert (tmp_path / "worker-id").read_text() == name


@pytest.mark.parametrize(
    ("folder", "told"),
    [
        ("plexy-ledger@here", None),
        ("plexy-ledger@elsewhere", "the Kafka elsewhere, and here answers"),
        ("shop2.plexy-ledger@here", "the group shop2.plexy-ledger"),
        ("plexy-ledger-v2@here", "the group plexy-ledger-v2"),
    ],
)
def test_tables_that_nobody_reads_are_named_with_their_size(patient, tmp_path, folder, told):
    tables = tmp_path / "tables" / "v1" / folder
    tables.mkdir(parents=True)
    (tables / "data").write_bytes(bytes(1024 * 1024))
    patient = with_settings(patient, data_dir=tmp_path)
    patient.cluster = Cluster("here", 1)
    found = only(Level.WARNING, check_folders(patient))
    assert [told in each.what for each in found] == ([True] if told else [])
    assert [f"{tables} has 1.0 MiB" in each.what for each in found] == ([True] if told else [])
    # The version that went before the one of now stays, as the way back.
    newer = with_settings(patient, data_dir=tmp_path, version=3)
    assert bool(only(Level.WARNING, check_folders(newer))) == ("v2" not in folder and bool(told))


def test_what_keeps_no_tables_has_no_folder_to_look_at(patient):
    assert (
        list(check_folders(with_settings(patient, "ingest", "topics", data_dir="/dev/null"))) == []
    )
