"""A peer (a program that a benchmark measures) is built once, and again if its source changes."""

import sys
from pathlib import Path

import pytest

from bench.builds import build_once
from bench.stage import BenchError


def build(folder: Path, source: Path, code: str) -> None:
    build_once("the thing", folder, [source], [sys.executable, "-c", code, str(folder)])


MAKES = "import sys, pathlib; p = pathlib.Path(sys.argv[1]); p.mkdir(); (p / 'thing').touch()"
FAILS = f"{MAKES}; sys.exit('no such library')"


@pytest.fixture
def source(tmp_path):
    file = tmp_path / "source"
    file.write_text("1")
    return file


def test_a_peer_is_built_once_and_the_build_is_announced(tmp_path, source, capsys):
    folder = tmp_path / "build" / "thing"
    build(folder, source, MAKES)
    build(
        folder, source, MAKES
    )  # If this call built the peer, it would fail, because the folder exists.
    assert (folder / "thing").exists()
    assert capsys.readouterr().err == "Building the thing, once …\n"


def test_a_peer_is_rebuilt_after_its_source_changes(tmp_path, source):
    folder = tmp_path / "thing"
    build(folder, source, MAKES)
    (folder / "thing").unlink()
    source.write_text("2")
    build(folder, source, MAKES)
    assert (folder / "thing").exists()


def test_a_failed_build_reports_the_reason_and_does_not_count_as_complete(tmp_path, source):
    folder = tmp_path / "thing"
    with pytest.raises(BenchError, match=r"the thing can't be built(?s:.*)no such library"):
        build(folder, source, FAILS)
    build(folder, source, MAKES)
    assert (folder / "thing").exists()
