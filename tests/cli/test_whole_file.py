"""A file has its name once it is whole, and never another's."""

import errno
from pathlib import Path

import pytest

from cli.errors import WrongOptionError
from cli.whole_file import appears_whole


@pytest.fixture(params=["with links", "without links"], autouse=True)
def file_system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Test on a file system that has hard links, and as on one that has none."""

    def refuse(_self: Path, _target: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    if request.param == "without links":
        monkeypatch.setattr(Path, "hardlink_to", refuse)


def test_it_appears_after_the_block_and_alone(tmp_path):
    path = tmp_path / "file"
    with appears_whole(path) as file:
        file.write(b"all of it")
        assert not path.exists()
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"all of it"


def test_what_is_there_already_is_not_written_over(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"another's")
    with pytest.raises(WrongOptionError, match="exists already"), appears_whole(path):
        pytest.fail("it was opened")
    assert path.read_bytes() == b"another's"


def test_what_appears_while_it_is_written_is_not_written_over_either(tmp_path):
    path = tmp_path / "file"
    with pytest.raises(WrongOptionError, match="has appeared meanwhile"), appears_whole(path):
        path.write_bytes(b"another's")
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"another's"


def test_what_is_interrupted_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), appears_whole(tmp_path / "file"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_where_it_can_t_be_named_nothing_has_the_name(tmp_path, monkeypatch):
    def refuse(_self: Path, _target: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError, match="Input/output"), appears_whole(tmp_path / "file"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with (
        pytest.raises(WrongOptionError, match="there is no folder"),
        appears_whole(tmp_path / "nowhere" / "file"),
    ):
        pytest.fail("it was opened")
