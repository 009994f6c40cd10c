"""The command: every check is heard, whatever becomes of another; the exit code is the verdict."""

import io
import json

import pytest
from rich.console import Console

from cli.doctor.command import CHECKS, contained, doctor
from cli.doctor.findings import Level, ok, problem, warning
from cli.errors import WrongOptionError
from runtime.settings import SettingsError
from tests.cli.doctor.conftest import one


def look(patient, monkeypatch, *, as_json=False, **checks):
    """Return the verdict, and what is printed."""
    monkeypatch.setattr("cli.doctor.command.CHECKS", checks)
    console = Console(file=io.StringIO(), width=80)
    good = doctor(patient.environment, patient.programs, console, as_json=as_json)
    return good, console.file.getvalue()


def fails(_patient):
    yield ok("this was well")
    raise ZeroDivisionError("by a bug")


def test_the_checks_are_those_that_are_documented():
    assert list(CHECKS) == ["settings", "versions", "kafka", "topics", "folders", "ports"]


def test_a_check_that_crashes_is_a_problem_and_hides_neither_itself_nor_the_others(
    patient, monkeypatch
):
    good, printed = look(
        patient, monkeypatch, first=fails, second=lambda _: [warning("a thing", "do this")]
    )
    assert not good
    assert "this was well" in printed
    assert "the check itself failed: ZeroDivisionError: by a bug" in printed
    assert "→ do this" in printed
    assert printed.endswith("1 problem, 1 warning\n")


def test_what_cannot_be_looked_at_for_the_settings_is_a_warning():
    def refuses(_patient):
        raise SettingsError("LEDGER_WEB_PORT: no port")

    finding = one(Level.WARNING, contained(refuses, None))
    assert finding.what == "this was not looked at: LEDGER_WEB_PORT: no port"


@pytest.mark.parametrize(
    ("findings", "good"),
    [([ok("a")], True), ([ok("a"), warning("b", "c")], True), ([problem("a", "b")], False)],
)
def test_only_a_problem_makes_it_fail(patient, monkeypatch, findings, good):
    assert look(patient, monkeypatch, only=lambda _: findings)[0] is good


def test_who_named_no_command_is_told_that_it_can_be_done_and_one_who_did_is_not(
    patient, monkeypatch, capsys
):
    monkeypatch.setattr("cli.doctor.command.CHECKS", {"only": lambda _: [problem("a", "b")]})
    doctor(patient.environment, (), Console(width=80), as_json=False)
    assert "`plexy-ledger doctor run`" in capsys.readouterr().out
    doctor(patient.environment, ("run",), Console(width=80), as_json=False)
    assert "plexy-ledger doctor" not in capsys.readouterr().out


def test_a_remedy_is_one_line_however_narrow_the_terminal_is(patient, monkeypatch):
    remedy = "change it with `" + "x" * 200 + "`"
    _, printed = look(patient, monkeypatch, only=lambda _: [problem("a", remedy)])
    assert f"→ {remedy}\n" in printed


def test_what_comes_from_outside_cannot_fake_a_line(patient, monkeypatch):
    _, printed = look(patient, monkeypatch, only=lambda _: [problem("a\nNo problem [red]", "b")])
    assert "a\\nNo problem [red]" in printed


def test_for_programs_there_is_one_object_with_every_finding(patient, monkeypatch, capsys):
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


def test_a_program_that_there_is_not_is_a_wrong_argument(patient):
    with pytest.raises(WrongOptionError, match=r"^wroker: expected .*worker"):
        doctor(patient.environment, ("wroker",), Console(), as_json=False)
