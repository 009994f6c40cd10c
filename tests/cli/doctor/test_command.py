"""`doctor` runs every check, even if another check crashes; it fails only if it finds a problem."""

import io
import json

import pytest
from rich.console import Console

from cli.doctor.checks import Level, ok, problem, warning
from cli.doctor.command import CHECKS, contained, doctor
from cli.errors import WrongOptionError
from runtime.settings import SettingsError
from tests.cli.doctor.conftest import one


def look(patient, monkeypatch, *, as_json=False, **checks):
    """Run the command with these checks; return its verdict and the printed text."""
    monkeypatch.setattr("cli.doctor.command.CHECKS", checks)
    console = Console(file=io.StringIO(), width=80)
    good = doctor(patient.environment, patient.programs, console, as_json=as_json)
    return good, console.file.getvalue()


def fails(_patient):
    yield ok("this was checked")
    raise ZeroDivisionError("a bug")


def test_the_checks_run_in_the_expected_sequence():
    assert list(CHECKS) == ["settings", "versions", "kafka", "topics", "folders", "ports"]


def test_a_check_that_crashes_is_a_problem_and_the_other_checks_still_run(patient, monkeypatch):
    good, printed = look(
        patient, monkeypatch, first=fails, second=lambda _: [warning("a fault", "do this")]
    )
    assert not good
    assert "this was checked" in printed
    assert "the check itself failed: ZeroDivisionError: a bug" in printed
    assert "→ do this" in printed
    assert printed.endswith("1 problem, 1 warning\n")


def test_a_check_whose_settings_are_invalid_becomes_a_warning():
    def refuses(_patient):
        raise SettingsError("LEDGER_WEB_PORT: no port")

    result = one(Level.WARNING, contained(refuses, None))
    assert result.what == "not checked: LEDGER_WEB_PORT: no port"


@pytest.mark.parametrize(
    ("results", "good"),
    [([ok("a")], True), ([ok("a"), warning("b", "c")], True), ([problem("a", "b")], False)],
)
def test_the_command_fails_only_if_there_is_a_problem(patient, monkeypatch, results, good):
    assert look(patient, monkeypatch, only=lambda _: results)[0] is good


def test_the_command_suggests_naming_programs_only_if_none_is_named(patient, monkeypatch, capsys):
    monkeypatch.setattr("cli.doctor.command.CHECKS", {"only": lambda _: [problem("a", "b")]})
    doctor(patient.environment, (), Console(width=80), as_json=False)
    assert "`plexy-ledger doctor run`" in capsys.readouterr().out
    doctor(patient.environment, ("run",), Console(width=80), as_json=False)
    assert "plexy-ledger doctor" not in capsys.readouterr().out


def test_a_remedy_is_not_wrapped_in_a_narrow_terminal(patient, monkeypatch):
    remedy = "change it with `" + "x" * 200 + "`"
    _, printed = look(patient, monkeypatch, only=lambda _: [problem("a", remedy)])
    assert f"→ {remedy}\n" in printed


def test_external_text_cannot_fake_a_line_or_a_style(patient, monkeypatch):
    _, printed = look(patient, monkeypatch, only=lambda _: [problem("a\nNo problem [red]", "b")])
    assert "a\\nNo problem [red]" in printed


def test_with_json_the_output_is_one_object_with_every_result(patient, monkeypatch, capsys):
    good, printed = look(
        patient,
        monkeypatch,
        as_json=True,
        one=lambda _: [ok("a")],
        two=lambda _: [problem("b", "c"), warning("d", "e")],
    )
    assert not good
    assert printed == ""
    assert json.loads(capsys.readouterr().out) == {
        "problems": 1,
        "warnings": 1,
        "findings": [
            {"check": "one", "level": "ok", "what": "a", "remedy": ""},
            {"check": "two", "level": "problem", "what": "b", "remedy": "c"},
            {"check": "two", "level": "warning", "what": "d", "remedy": "e"},
        ],
    }


def test_an_unknown_program_is_a_wrong_argument(patient):
    with pytest.raises(WrongOptionError, match=r"^wroker: expected .*worker"):
        doctor(patient.environment, ("wroker",), Console(), as_json=False)
