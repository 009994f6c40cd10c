"""Child processes are started, watched and stopped, and their ends are described."""

import os
import time

import pytest

from cli.errors import ProgramEndedError
from cli.run.programs import Command, describe_exit, stop_all


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("LEDGER_")}


def _wait_for_end(command: Command) -> None:
    deadline = time.monotonic() + 30
    while command.exit_code() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_each_line_that_a_program_prints_is_shown():
    lines: list[str] = []
    command = Command("version", _environment(), lines.append)
    command.start()
    _wait_for_end(command)
    command.join(1)
    assert command.exit_code() == 0
    assert lines[0].startswith("plexy-ledger ")
    assert command.last_lines == lines


def test_the_end_of_a_program_raises_an_error_with_its_exit_code_and_last_lines():
    command = Command("ingest", _environment())
    command.start()
    _wait_for_end(command)
    with pytest.raises(ProgramEndedError, match="ingest ended with exit code 2") as caught:
        command.check_alive()
    assert "LEDGER_WEBHOOK_SECRETS is not set" in str(caught.value)


def test_a_folder_named_cli_in_the_current_folder_is_not_run(tmp_path, monkeypatch):
    (tmp_path / "cli").mkdir()
    (tmp_path / "cli" / "__init__.py").write_text("raise SystemExit(77)")
    monkeypatch.chdir(tmp_path)
    command = Command("version", _environment())
    command.start()
    _wait_for_end(command)
    assert command.exit_code() == 0


def test_a_program_that_was_never_started_can_be_stopped():
    command = Command("worker", {})
    stop_all([command])
    assert command.exit_code() is None


def test_several_programs_are_stopped():
    commands = [Command("version", _environment()) for _ in range(2)]
    for command in commands:
        command.start()
    stop_all(commands)
    assert all(command.exit_code() is not None for command in commands)


def test_an_unknown_signal_is_described_by_its_number():
    assert describe_exit(-200) == "was ended by signal 200"
