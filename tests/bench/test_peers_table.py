"""A benchmark skips the programs that this machine can't run; no two programs share a name."""

from bench.__main__ import _runnable
from bench.peers.table import PROGRAMS


def test_a_peer_that_this_machine_cannot_run_is_skipped_and_the_reason_is_printed(
    monkeypatch, capsys, tmp_path
):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert [program.name for program in _runnable(["ours", "kafka_streams"])] == ["ours"]
    said = "Skipped: Kafka Streams needs a JDK (17 or newer) and Maven: there is no java\n"
    assert capsys.readouterr().err == said


def test_no_two_programs_share_a_name():
    names = [program.name for program in PROGRAMS]
    assert len(set(names)) == len(names)
