"""The command ``doctor`` runs every check and prints each result with its remedy.

If a check itself fails, its failure is shown as a problem, and the other checks still run.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import msgspec
import typer
from rich.console import Console
from rich.text import Text

from cli.doctor.checks import Check, CheckResult, Level, Patient, problem, warning
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
    "If this machine runs only some of the commands, name them: `plexy-ledger doctor run` checks "
    "only the needs of `run`."
)


def check_folders(patient: Patient) -> Iterable[CheckResult]:
    """Check the worker's folder with the functions that the worker itself uses."""
    # The module imports RocksDB, which may be broken. So the import is here: if it fails, only this
    # check fails.
    from cli.doctor.folders import check_folders as check  # noqa: PLC0415

    return check(patient)


# The checks run in this order: the Kafka check sets `Patient.cluster`, which later checks read.
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
    """Run every check, print the results, and return whether no check found a problem."""
    unknown = [program for program in programs if program not in READ_BY]
    if unknown:
        raise WrongOptionError(
            f"{', '.join(unknown)}: expected commands that read settings: {', '.join(READ_BY)}"
        )
    patient = Patient(environment, programs or tuple(READ_BY))
    found: list[tuple[str, CheckResult]] = []
    for name, check in CHECKS.items():
        with console.status(f"checking {name} …"):
            new = [(name, result) for result in contained(check, patient)]
        found += new
        if not as_json:
            for each in new:
                _show(console, *each)
    levels = [result.level for _, result in found]
    problems, warnings = levels.count(Level.PROBLEM), levels.count(Level.WARNING)
    if as_json:
        typer.echo(_json(found))
    else:
        console.print(Text(_verdict(problems, warnings), style="bold"))
        if problems and not programs:
            line(console, _NAME_SOME)
    return problems == 0


def contained(check: Check, patient: Patient) -> Iterator[CheckResult]:
    """Yield a check's results; yield a warning or a problem if the check itself fails."""
    try:
        yield from check(patient)
    except SettingsError as error:
        yield warning(f"not checked: {error}", "correct the settings, then run `doctor` again")
    except Exception as error:  # noqa: BLE001 - the other checks still run
        yield problem(
            f"the check itself failed: {type(error).__name__}: {error}",
            "if no result above explains this error, it is a bug: keep this output",
        )


def _show(console: Console, name: str, result: CheckResult) -> None:
    """Print a result and its remedy without wrapping, so that commands can be copied."""
    text = Text(f"{result.level:<{_LEVEL_WIDTH}}", style=_STYLES[result.level])
    text.append(f"{name:<{_NAME_WIDTH}}{plain(result.what)}", style="default")
    console.print(text, soft_wrap=True)
    if result.remedy:
        indent = " " * (_LEVEL_WIDTH + _NAME_WIDTH)
        console.print(Text(f"{indent}→ {plain(result.remedy)}", style="italic"), soft_wrap=True)


def _verdict(problems: int, warnings: int) -> str:
    """Return the numbers of problems and warnings as text.

    >>> _verdict(1, 2), _verdict(0, 0)
    ('1 problem, 2 warnings', 'No problem, no warning')
    """
    if not problems and not warnings:
        return "No problem, no warning"
    first = counted(problems, "problem") if problems else "No problem"
    return f"{first}, {counted(warnings, 'warning')}" if warnings else first


def _json(found: list[tuple[str, CheckResult]]) -> str:
    """Return the results, and the numbers of problems and warnings, as JSON for programs."""
    levels = [result.level for _, result in found]
    document = {
        "problems": levels.count(Level.PROBLEM),
        "warnings": levels.count(Level.WARNING),
        "findings": [{"check": name, **msgspec.structs.asdict(each)} for name, each in found],
    }
    return msgspec.json.format(msgspec.json.encode(document)).decode()
