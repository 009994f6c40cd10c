"""Only the user that runs a program may enter the program's data folders."""

import os
from pathlib import Path

import pytest

from runtime.folders import private_folder


@pytest.fixture(autouse=True)
def _open_to_all_by_default():
    """Clear the umask, so that folders are open to everyone unless their mode is set."""
    before = os.umask(0)
    yield
    os.umask(before)


def mode(folder: Path) -> int:
    return folder.stat().st_mode & 0o7777


def test_a_new_folder_and_its_new_parents_are_private(tmp_path):
    folder = private_folder(tmp_path / "data" / "tables")
    assert mode(folder) == mode(folder.parent) == 0o700


def test_an_open_folder_of_this_user_is_made_private(tmp_path):
    (tmp_path / "tables").mkdir(0o755)
    assert mode(private_folder(tmp_path / "tables")) == 0o700


def test_an_existing_parent_is_not_changed(tmp_path):
    (tmp_path / "chosen").mkdir(0o755)
    private_folder(tmp_path / "chosen" / "tables")
    assert mode(tmp_path / "chosen") == 0o755


def test_a_folder_of_another_user_is_not_changed(tmp_path):
    folder = Path("/")
    if os.geteuid() == 0:
        folder = tmp_path / "theirs"
        folder.mkdir(0o755)
        os.chown(folder, 10001, -1)
    before = mode(folder)
    assert mode(private_folder(folder)) == before != 0o700
