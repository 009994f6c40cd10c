"""The environment: what each program reads, what none of them does, and what protects the ledger.

In: the environment. Out: findings. Never: a secret's text.
"""

import contextlib
import socket
from collections.abc import Iterator
from difflib import get_close_matches

from cli.doctor.findings import Finding, Patient, ok, problem, warning
from cli.run.command import plan
from cli.settings import DEVELOPMENT_SECRET
from cli.settings_table import READ_BY, rows
from processors.settings import WorkerSettings
from runtime.access import is_loopback
from runtime.settings import PREFIX, SettingsError


def check_settings(patient: Patient) -> Iterator[Finding]:
    """Look at everything that is set, and at what should be."""
    yield from _readable(patient)
    yield from _unknown(patient)
    yield from _signatures(patient)
    yield from _views(patient)


def _readable(patient: Patient) -> Iterator[Finding]:
    refused: dict[str, list[str]] = {}
    for program in patient.programs:
        try:
            _read(program, patient)
        except SettingsError as error:
            refused.setdefault(str(error), []).append(program)
    for reason, programs in refused.items():
        yield problem(
            reason,
            f"without that {_listed(programs)} won't start; `plexy-ledger settings` lists all",
        )
    bad = {program for programs in refused.values() for program in programs}
    good = [program for program in patient.programs if program not in bad]
    if good:
        yield ok(f"{_listed(good)}: the settings can be read")


def _read(program: str, patient: Patient) -> None:
    if program == "run":
        # It sets for its programs what it is not told.
        plan(patient.environment)
        return
    for kind in READ_BY[program]:
        kind.from_environment(patient.environment)


def _unknown(patient: Patient) -> Iterator[Finding]:
    known = [row.variable for row in rows()]
    for name in sorted(patient.environment):
        if name.startswith(PREFIX) and name not in known:
            near = get_close_matches(name, known, n=1)
            meant = f"it may be meant for {near[0]}" if near else "no setting has a name like it"
            yield warning(
                f"{name} is set, and no program reads it", f"{meant}; correct it, or unset it"
            )


def _signatures(patient: Patient) -> Iterator[Finding]:
    environment = patient.environment
    if not patient.readers("LEDGER_WEBHOOK_SECRETS"):
        return
    if environment.get("LEDGER_ALLOW_UNSIGNED", "").strip().lower() in {"true", "1"}:
        yield warning(
            "LEDGER_ALLOW_UNSIGNED=true: anybody's delivery is taken for Plexy's",
            "for anything but development, unset it and set LEDGER_WEBHOOK_SECRETS",
        )
    secrets = [each.strip() for each in environment.get("LEDGER_WEBHOOK_SECRETS", "").split(",")]
    if DEVELOPMENT_SECRET in secrets:
        yield warning(
            "LEDGER_WEBHOOK_SECRETS has the secret of the documentation, which everybody knows",
            "for anything but development, set the secrets of the Plexy endpoint alone",
        )
    if any(secret[:1] in {"'", '"'} for secret in secrets):
        yield warning(
            "a secret in LEDGER_WEBHOOK_SECRETS begins with a quotation mark",
            "files of `docker --env-file` and secrets of Kubernetes take values without quotes",
        )


def _views(patient: Patient) -> Iterator[Finding]:
    if not patient.readers("LEDGER_WEB_BIND"):
        return
    if not patient.is_set("LEDGER_API_TOKEN"):
        yield warning(
            "LEDGER_API_TOKEN is not set: on this machine anybody reads orders and payments",
            "set it, to what `openssl rand -hex 32` prints for example",
        )
    if patient.readers("LEDGER_WEB_HOST"):
        # What can't be read was named before.
        with contextlib.suppress(SettingsError):
            worker = WorkerSettings.from_environment(patient.environment)
            yield from _reachable(worker)


def _reachable(worker: WorkerSettings) -> Iterator[Finding]:
    """Look at the name under which other workers ask this one for what it has."""
    if is_loopback(worker.web_host) and not is_loopback(worker.web_bind):
        yield warning(
            f"LEDGER_WEB_HOST={worker.web_host}: workers on other machines would look for this "
            "one's views on their own",
            "set it to a name under which they reach this one",
        )
    try:
        socket.getaddrinfo(worker.web_host, worker.web_port)
    except OSError as error:
        yield problem(
            f"LEDGER_WEB_HOST={worker.web_host} is no host that this machine knows ({error})",
            "set it to a name, or an address, under which other workers reach this one",
        )


def _listed(names: list[str]) -> str:
    return ", ".join(names)
