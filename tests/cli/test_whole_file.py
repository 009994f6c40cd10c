"""A file gets its name only after the file is complete, and never replaces an existing file."""

import errno
from pathlib import Path

import pytest

from cli.errors import WrongOptionError
from cli.whole_file import appears_whole


@pytest.fixture(params=["with links", "without links"], autouse=True)
def file_system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test twice: with hard links, and as if the file system had no hard links."""

    def refuse(_self: Path, _target: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    if request.param == "without links":
        monkeypatch.setattr(Path, "hardlink_to", refuse)


def test_the_file_appears_after_the_with_block_and_no_temporary_file_is_left(tmp_path):
    path = tmp_path / "file"
    with appears_whole(path) as file:
        file.write(b"all bytes")
        assert not path.exists()
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"all bytes"


def test_an_existing_file_is_not_replaced(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"another's")
    with pytest.raises(WrongOptionError, match="exists already"), appears_whole(path):
        pytest.fail("it was opened")
    assert path.read_bytes() == b"another's"


def test_a_file_of_the_same_name_that_appears_during_the_write_is_not_replaced(tmp_path):
    path = tmp_path / "file"
    with pytest.raises(WrongOptionError, match="has appeared meanwhile"), appears_whole(path):
        path.write_bytes(b"another's")
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"another's"


def test_an_interrupted_write_leaves_no_file(tmp_path):
    with pytest.raises(KeyboardInterrupt), appears_whole(tmp_path / "file"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_if_the_file_cannot_be_renamed_no_file_is_left(tmp_path, monkeypatch):
    def refuse(_self: Path, _target: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError, match="Input/output"), appears_whole(tmp_path / "file"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_refused(tmp_path):
    with (
        pytest.raises(WrongOptionError, match="there is no folder"),
        appears_whole(tmp_path / "nowhere" / "file"),
    ):
        pytest.fail("it was opened")
