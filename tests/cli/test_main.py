"""The command line has correct help and examples, one-line errors, and exit codes."""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from cli.kafka.process import free_port
from cli.main import app, main
from cli.settings_table import variables

_GROUP = typer.main.get_command(app)


def _leaves(group: Any, *before: str) -> Iterator[tuple[str, Any]]:
    """Yield each command with its full name, including the commands of groups."""
    for name, command in sorted(group.commands.items()):
        if hasattr(command, "commands"):
            yield from _leaves(command, *before, name)
        else:
            yield " ".join([*before, name]), command


_COMMANDS = dict(_leaves(_GROUP))
_EXAMPLES = [
    (name, example)
    for name, command in _COMMANDS.items()
    for example in command.epilog.splitlines()
]


def _run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LEDGER_")}
    return subprocess.run(
        [sys.executable, "-m", "cli", *arguments],
        env=kept | settings,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_commands_are_exactly_the_documented_commands():
    documented = (
        "run demo kafka topics ingest worker send simulate status verify prove audit rebuild "
        "rejected export-log import-log export reconcile doctor settings version"
    )
    assert sorted(documented.split()) == sorted(_GROUP.commands)


@pytest.mark.parametrize("name", _COMMANDS)
def test_the_help_of_each_command_has_an_example_and_names_its_settings(name):
    result = CliRunner().invoke(app, [*name.split(), "--help"])
    assert result.exit_code == 0
    for example in _COMMANDS[name].epilog.splitlines():
        assert f"  {example}\n" in result.output
    for variable in variables(name.split()[0]):
        assert variable in result.output
    # "\b" is the mark with which click prevents wrapping. Typer would print this mark as text, so
    # the help must not contain it.
    assert "\\b" not in result.output
    assert "\b" not in result.output
    assert "[[" not in result.output.partition("\n")[0]


@pytest.mark.parametrize("group", [[], ["rejected"]], ids=str)
def test_the_summary_of_each_command_fits_80_columns(group):
    listed = CliRunner().invoke(app, [*group, "--help"], env={"COLUMNS": "80"}).output
    _, _, commands = listed.partition("Commands:\n")
    assert commands
    assert "..." not in commands


@pytest.mark.parametrize(("name", "example"), _EXAMPLES)
def test_each_example_parses_and_sets_only_variables_that_its_command_reads(
    name, example, monkeypatch, tmp_path
):
    words = shlex.split(example)
    settings = [word.partition("=")[0] for word in words[: words.index("plexy-ledger")]]
    assert set(settings) <= set(variables(name.split()[0]))
    arguments = words[words.index("plexy-ledger") + 1 :]
    depth = len(name.split())
    assert arguments[:depth] == name.split()
    # Some examples read these files.
    monkeypatch.chdir(tmp_path)
    Path("ledger-2026-01-31.log").touch()
    Path("settlement.csv").touch()
    _COMMANDS[name].make_context(name, arguments[depth:])


def test_a_wrong_setting_causes_one_line_and_exit_code_2():
    result = _run("worker", LEDGER_WEB_PORT="eighty")
    assert result.returncode == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("plexy-ledger: LEDGER_WEB_PORT: ")
    assert "'eighty'" in line


def test_an_ingress_without_a_secret_does_not_start():
    result = _run("ingest")
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert "LEDGER_WEBHOOK_SECRETS" in result.stderr


@pytest.mark.parametrize("name", ["topics", "worker"])
def test_without_kafka_one_line_names_the_address_and_the_remedy(name):
    bootstrap = f"127.0.0.1:{free_port()}"
    result = _run(name, LEDGER_KAFKA_BOOTSTRAP=bootstrap)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert bootstrap in line
    assert "LEDGER_KAFKA_BOOTSTRAP" in line


def test_a_command_that_finds_a_problem_has_exit_code_1():
    result = _run("doctor", "topics", LEDGER_KAFKA_BOOTSTRAP=f"127.0.0.1:{free_port()}")
    assert result.returncode == 1
    assert "problem" in result.stdout


def test_a_wrong_option_causes_exit_code_2():
    result = _run("send", "--amount", "much")
    assert result.returncode == 2
    assert "--amount" in result.stderr
    assert "Traceback" not in result.stderr


def test_an_invalid_file_of_expected_orders_causes_one_line_and_exit_code_2(tmp_path):
    file = tmp_path / "expected.json"
    file.write_text("{}")
    result = _run("demo", "--expected", str(file))
    assert result.returncode == 2
    assert result.stderr.startswith(f"plexy-ledger: {file} is not an expected outcome")


def test_an_unexpected_error_keeps_its_traceback(monkeypatch):
    def fail(*_arguments, **_options):
        raise ZeroDivisionError

    monkeypatch.setattr("cli.main.app", fail)
    with pytest.raises(ZeroDivisionError):
        main()


def test_help_and_version_import_neither_faust_nor_aiokafka():
    code = (
        "import sys, cli.main\n"
        "try: cli.main.app(['version'], prog_name='x')\n"
        "except SystemExit: pass\n"
        "print({'faust', 'aiokafka', 'httpx'} & set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert result.stdout.splitlines()[-1] == "set()"


def test_version_names_the_main_dependencies():
    result = _run("version")
    assert result.returncode == 0
    names = [line[:16].strip() for line in result.stdout.splitlines()]
    assert names == ["plexy-ledger", "python", "faust-streaming", "aiokafka", "embedded Kafka"]
