"""What the doctor's checks look at, and what they say.

In: an environment and the programs that are to run in it. Out: ``Finding`` values. Never: a problem
without what to do about it, and never a secret.
"""

from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from functools import partial
from typing import Final

import msgspec

from cli.settings_table import variables


class Level(StrEnum):
    """How bad it is. With a warning everything runs, and is not as it should be."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at; ``remedy`` is what to do, empty where all is well."""

    level: Level
    what: str
    remedy: str = ""


ok: Final = partial(Finding, Level.OK)


def warning(what: str, remedy: str) -> Finding:
    """Return what should be put right, though everything runs."""
    return Finding(Level.WARNING, what, remedy)


def problem(what: str, remedy: str) -> Finding:
    """Return what keeps a program from running, or the ledger from being kept."""
    return Finding(Level.PROBLEM, what, remedy)


class Cluster(msgspec.Struct, frozen=True):
    """The Kafka that answered."""

    cluster_id: str
    brokers: int


class Patient(msgspec.Struct):
    """What is looked at. ``cluster`` is there once Kafka has answered."""

    environment: Mapping[str, str]
    programs: tuple[str, ...]
    cluster: Cluster | None = None

    def readers(self, variable: str) -> list[str]:
        """Return which of the programs read a setting."""
        return [program for program in self.programs if variable in variables(program)]

    def is_set(self, variable: str) -> bool:
        """Return whether a setting has a value of its own."""
        return bool(self.environment.get(variable, "").strip())


Check = Callable[[Patient], Iterable[Finding]]
