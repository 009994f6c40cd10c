"""A worker's name stays with its folder, and a folder belongs to one process at a time."""

import subprocess
import sys
from pathlib import Path

import pytest

from processors.identity import claim
from runtime.settings import SettingsError

CLAIM = """
import sys
from pathlib import Path
from processors.identity import claim
print(claim(Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""


def claimed_elsewhere(folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", CLAIM, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_folder_keeps_its_name_and_is_free_again_when_its_process_is_killed(tmp_path):
    with claimed_elsewhere(tmp_path) as other:
        assert other.stdout
        name = other.stdout.readline().strip()
        with pytest.raises(SettingsError, match="belongs to a worker that runs"):
            claim(tmp_path)
        other.kill()
    assert len(name) == 32
    assert claim(tmp_path) == name


def test_two_folders_have_two_names(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    assert claim(tmp_path / "one") != claim(tmp_path / "two")
