"""Checks the environment: invalid settings, variables that no program reads, and weak protection.

No result contains a secret.
"""

import contextlib
import socket
from collections.abc import Iterator
from difflib import get_close_matches

from cli.doctor.checks import CheckResult, Patient, ok, problem, warning
from cli.run.command import plan
from cli.settings import DEVELOPMENT_SECRET
from cli.settings_table import READ_BY, rows
from processors.settings import WorkerSettings
from runtime.access import is_loopback
from runtime.settings import PREFIX, SettingsError


def check_settings(patient: Patient) -> Iterator[CheckResult]:
    """Check the variables that are set, and the variables that should be set."""
    yield from _readable(patient)
    yield from _unknown(patient)
    yield from _signatures(patient)
    yield from _views(patient)


def _readable(patient: Patient) -> Iterator[CheckResult]:
    faults: dict[str, list[str]] = {}
    for program in patient.programs:
        try:
            _read(program, patient)
        except SettingsError as error:
            faults.setdefault(str(error), []).append(program)
    for reason, programs in faults.items():
        names = ", ".join(programs)
        yield problem(
            reason, f"correct it to start {names}; `plexy-ledger settings` lists all settings"
        )
    bad = {program for programs in faults.values() for program in programs}
    good = [program for program in patient.programs if program not in bad]
    if good:
        yield ok(f"{', '.join(good)}: the settings are valid")


def _read(program: str, patient: Patient) -> None:
    if program == "run":
        # For the programs that it starts, `run` has its own defaults.
        plan(patient.environment)
        return
    for kind in READ_BY[program]:
        kind.from_environment(patient.environment)


def _unknown(patient: Patient) -> Iterator[CheckResult]:
    known = [row.variable for row in rows()]
    for name in sorted(patient.environment):
        if name.startswith(PREFIX) and name not in known:
            near = get_close_matches(name, known, n=1)
            meant = f"{near[0]} may be meant" if near else "no setting has a similar name"
            yield warning(
                f"{name} is set, but no program reads it", f"{meant}; correct it, or unset it"
            )


def _signatures(patient: Patient) -> Iterator[CheckResult]:
    environment = patient.environment
    if not patient.readers("LEDGER_WEBHOOK_SECRETS"):
        return
    if environment.get("LEDGER_ALLOW_UNSIGNED", "").strip().lower() in {"true", "1"}:
        yield warning(
            "LEDGER_ALLOW_UNSIGNED=true: ingress accepts deliveries from anyone",
            "outside development, unset it and set LEDGER_WEBHOOK_SECRETS",
        )
    secrets = [each.strip() for each in environment.get("LEDGER_WEBHOOK_SECRETS", "").split(",")]
    if DEVELOPMENT_SECRET in secrets:
        yield warning(
            "LEDGER_WEBHOOK_SECRETS contains the secret that is public in the documentation",
            "outside development, set only the secrets of the Plexy endpoint",
        )


def _views(patient: Patient) -> Iterator[CheckResult]:
    if not patient.readers("LEDGER_WEB_BIND"):
        return
    if not patient.is_set("LEDGER_API_TOKEN"):
        yield warning(
            "LEDGER_API_TOKEN is not set: every user of this machine can read orders and payments",
            "set it, for example to the output of `openssl rand -hex 32`",
        )
    if patient.readers("LEDGER_WEB_HOST"):
        # `_readable` has already reported invalid settings.
        with contextlib.suppress(SettingsError):
            worker = WorkerSettings.from_environment(patient.environment)
            yield from _reachable(worker)


def _reachable(worker: WorkerSettings) -> Iterator[CheckResult]:
    """Check the host name at which other workers ask this worker for its views."""
    if is_loopback(worker.web_host) and not is_loopback(worker.web_bind):
        yield warning(
            f"LEDGER_WEB_HOST={worker.web_host}: workers on other machines would ask their own "
            "machine for this worker's views",
            "set it to a name under which they reach this worker",
        )
    try:
        socket.getaddrinfo(worker.web_host, worker.web_port)
    except OSError as error:
        yield problem(
            f"LEDGER_WEB_HOST={worker.web_host} can't be resolved on this machine ({error})",
            "set it to a name or an address under which other workers reach this worker",
        )
