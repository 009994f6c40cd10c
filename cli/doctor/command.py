"""The command ``doctor``: all checks, and what they found.

In: an environment, and which programs are to run in it. Out: a line for each thing that was looked
at, with what to do; whether there is no problem. Never: a change, and never a check whose crash
hides what the others have to say.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import msgspec
import typer
from rich.console import Console
from rich.text import Text

from cli.doctor.findings import Check, Finding, Level, Patient, problem, warning
from cli.doctor.kafka import check_kafka
from cli.doctor.ports import check_ports
from cli.doctor.settings import check_settings
from cli.doctor.topics import check_topics
from cli.doctor.versions import check_versions
from cli.errors import WrongOptionError
from cli.printing import counted, line, plain
from cli.settings_table import READ_BY
from runtime.settings import SettingsError

_STYLES: Final = {Level.OK: "green", Level.WARNING: "yellow", Level.PROBLEM: "bold red"}
_NAME_WIDTH: Final = 9
_LEVEL_WIDTH: Final = 8
_NAME_SOME: Final = (
    "Not all commands are used here? Name those that are: `plexy-ledger doctor run` looks at what "
    "`run` needs, and at no more."
)


def check_folders(patient: Patient) -> Iterable[Finding]:
    """Look at the worker's folder, with what a worker itself uses for it."""
    # Only now: what it imports needs RocksDB, and may be just what is broken.
    from cli.doctor.folders import check_folders as check  # noqa: PLC0415

    return check(patient)


# In the order of their telling; Kafka's comes before those that need to know which one answers.
CHECKS: Final[Mapping[str, Check]] = {
    "settings": check_settings,
    "versions": check_versions,
    "kafka": check_kafka,
    "topics": check_topics,
    "folders": check_folders,
    "ports": check_ports,
}


def doctor(
    environment: Mapping[str, str], programs: tuple[str, ...], console: Console, *, as_json: bool
) -> bool:
    """Look at everything, say what was found, and return whether there is no problem."""
    unknown = [program for program in programs if program not in READ_BY]
    if unknown:
        raise WrongOptionError(
            f"{', '.join(unknown)}: expected commands that read settings: {', '.join(READ_BY)}"
        )
    patient = Patient(environment, programs or tuple(READ_BY))
    found: list[tuple[str, Finding]] = []
    for name, check in CHECKS.items():
        with console.status(f"looking at {name} …"):
            new = [(name, finding) for finding in contained(check, patient)]
        found += new
        if not as_json:
            for each in new:
                _show(console, *each)
    findings = [finding for _, finding in found]
    problems = sum(finding.level is Level.PROBLEM for finding in findings)
    warnings = sum(finding.level is Level.WARNING for finding in findings)
    if as_json:
        typer.echo(_json(found))
    else:
        console.print(Text(_verdict(problems, warnings), style="bold"))
        if problems and not programs:
            line(console, _NAME_SOME)
    return problems == 0


def contained(check: Check, patient: Patient) -> Iterator[Finding]:
    """Yield what a check finds; one that can't be done, or crashes, is a finding itself."""
    try:
        yield from check(patient)
    except SettingsError as error:
        yield warning(f"this was not looked at: {error}", "correct the settings, then look again")
    except Exception as error:  # noqa: BLE001 - whatever it is, the other checks go on
        yield problem(
            f"the check itself failed: {type(error).__name__}: {error}",
            "if nothing of the above explains it, it is a bug: keep this output",
        )


def _show(console: Console, name: str, finding: Finding) -> None:
    """Print a finding and its remedy, unwrapped, so that what is to be typed can be pasted."""
    text = Text(f"{finding.level:<{_LEVEL_WIDTH}}", style=_STYLES[finding.level])
    text.append(f"{name:<{_NAME_WIDTH}}{plain(finding.what)}", style="default")
    console.print(text, soft_wrap=True)
    if finding.remedy:
        indent = " " * (_LEVEL_WIDTH + _NAME_WIDTH)
        console.print(Text(f"{indent}→ {plain(finding.remedy)}", style="italic"), soft_wrap=True)


def _verdict(problems: int, warnings: int) -> str:
    """Say how many there are.

    >>> _verdict(1, 2), _verdict(0, 0)
    ('1 problem, 2 warnings', 'No problem, no warning')
    """
    if not problems and not warnings:
        return "No problem, no warning"
    told = [counted(problems, "problem") if problems else "No problem"]
    return ", ".join([*told, *([counted(warnings, "warning")] if warnings else [])])


def _json(found: list[tuple[str, Finding]]) -> str:
    """Write the findings for programs: check, level, what, remedy, and how many of each level."""
    levels = [finding.level for _, finding in found]
    document = {
        "problems": levels.count(Level.PROBLEM),
        "warnings": levels.count(Level.WARNING),
        "findings": [{"check": name, **msgspec.structs.asdict(each)} for name, each in found],
    }
    return msgspec.json.format(msgspec.json.encode(document)).decode()
