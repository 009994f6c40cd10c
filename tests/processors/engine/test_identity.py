"""A worker's name is stored in the worker's folder; a folder belongs to one process at a time."""

import fcntl

import pytest

from processors.engine.identity import claim, is_claimed
from runtime.settings import SettingsError
from tests.fakes import claimed_elsewhere


def test_a_folder_keeps_the_workers_name_and_is_free_again_after_the_process_is_killed(tmp_path):
    with claimed_elsewhere(tmp_path) as other:
        assert other.stdout
        name = other.stdout.readline().strip()
        with pytest.raises(SettingsError, match="belongs to a running worker"):
            claim(tmp_path)
        other.kill()
    assert len(name) == 32
    assert claim(tmp_path) == name


def test_two_folders_have_different_names(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    assert claim(tmp_path / "one") != claim(tmp_path / "two")


def test_no_file_is_created_by_the_check_whether_a_folder_is_claimed(tmp_path):
    assert not is_claimed(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with claimed_elsewhere(tmp_path) as other:
        assert other.stdout
        other.stdout.readline()
        assert is_claimed(tmp_path)
        other.kill()
    assert not is_claimed(tmp_path)


def test_a_worker_that_starts_while_its_folder_is_checked_is_not_refused(tmp_path, monkeypatch):
    with (tmp_path / "worker-id").open("w") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        monkeypatch.setattr("processors.engine.identity.time.sleep", lambda _s: looking.close())
        assert len(claim(tmp_path)) == 32
