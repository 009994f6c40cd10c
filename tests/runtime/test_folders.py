"""Only the user who runs the programs may enter their data folders."""

import os
from pathlib import Path

import pytest

from runtime.folders import private_folder


@pytest.fixture(autouse=True)
def _open_to_all_by_default():
    """Set no mask, so that folders are open to everybody unless their mode is set."""
    before = os.umask(0)
    yield
    os.umask(before)


def mode(folder: Path) -> int:
    return folder.stat().st_mode & 0o7777


def test_a_folder_and_those_above_it_that_are_made_are_private(tmp_path):
    folder = private_folder(tmp_path / "data" / "tables")
    assert mode(folder) == mode(folder.parent) == 0o700


def test_a_folder_of_ours_that_others_could_enter_is_closed(tmp_path):
    (tmp_path / "tables").mkdir(0o755)
    assert mode(private_folder(tmp_path / "tables")) == 0o700


def test_a_folder_above_that_was_there_stays_as_it_was(tmp_path):
    (tmp_path / "chosen").mkdir(0o755)
    private_folder(tmp_path / "chosen" / "tables")
    assert mode(tmp_path / "chosen") == 0o755


def test_a_folder_of_somebody_else_stays_as_it_is(tmp_path):
    folder = Path("/")
    if os.geteuid() == 0:
        folder = tmp_path / "theirs"
        folder.mkdir(0o755)
        os.chown(folder, 10001, -1)
    before = mode(folder)
    assert mode(private_folder(folder)) == before != 0o700
