"""The types of the doctor's checks: their input, a ``Patient``, and their results.

Every warning and every problem has a remedy. No result contains a secret.
"""

from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from functools import partial
from typing import Final

import msgspec

from cli.settings_table import variables
from runtime.fault import Fault


class Level(StrEnum):
    """How bad a result is: a warning stops no program, but a problem may stop a program."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


class CheckResult(msgspec.Struct, frozen=True):
    """One fact that a check found; ``remedy`` is empty if there is nothing to do."""

    level: Level
    what: str
    remedy: str = ""


ok: Final = partial(CheckResult, Level.OK)


def warning(what: str, remedy: str) -> CheckResult:
    """Return a fault that stops no program."""
    return CheckResult(Level.WARNING, what, remedy)


def problem(what: str, remedy: str) -> CheckResult:
    """Return a fault that keeps a program from running, or puts the ledger's records at risk."""
    return CheckResult(Level.PROBLEM, what, remedy)


def problem_of(fault: Fault) -> CheckResult:
    """Return, as a problem, a fault that another package has found."""
    return problem(fault.what, fault.remedy)


class Cluster(msgspec.Struct, frozen=True):
    """The Kafka cluster that answered."""

    cluster_id: str
    brokers: int


class Patient(msgspec.Struct):
    """The environment and programs to check; the Kafka check sets ``cluster`` if Kafka answers."""

    environment: Mapping[str, str]
    programs: tuple[str, ...]
    cluster: Cluster | None = None

    def readers(self, variable: str) -> list[str]:
        """Return the programs that read a setting."""
        return [program for program in self.programs if variable in variables(program)]

    def is_set(self, variable: str) -> bool:
        """Return whether the environment sets a setting."""
        return bool(self.environment.get(variable, "").strip())


Check = Callable[[Patient], Iterable[CheckResult]]
