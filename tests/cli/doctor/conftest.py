"""Provides a patient (the settings that `doctor` checks), and functions that select results."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from cli.doctor.checks import CheckResult, Level, Patient
from cli.kafka.process import free_port
from cli.settings_table import READ_BY

SECRET = "whsec_of_the_test"


@pytest.fixture
def patient(tmp_path: Path) -> Patient:
    """Return a patient with valid settings for every program."""
    return Patient(
        {
            "LEDGER_KAFKA_BOOTSTRAP": f"127.0.0.1:{free_port()}",
            "LEDGER_WEBHOOK_SECRETS": SECRET,
            "LEDGER_API_TOKEN": "token of the test",
            "LEDGER_DATA_DIR": str(tmp_path / "ledger"),
            "LEDGER_INGEST_PORT": str(free_port()),
            "LEDGER_INGEST_METRICS_PORT": str(free_port()),
            "LEDGER_WEB_PORT": str(free_port()),
            "LEDGER_AUDIT_PORT": str(free_port()),
            "LEDGER_KAFKA_PORT": str(free_port()),
        },
        tuple(READ_BY),
    )


def with_settings(patient: Patient, *programs: str, **settings: object) -> Patient:
    """Return a patient with changed settings; an empty string removes a setting."""
    given = {f"LEDGER_{name.upper()}": str(value) for name, value in settings.items()}
    return Patient({**patient.environment, **given}, programs or patient.programs, patient.cluster)


def only(level: Level, results: Iterable[CheckResult]) -> list[CheckResult]:
    """Return the results of one level; each result that is not OK must have a remedy."""
    found = list(results)
    assert all(each.remedy for each in found if each.level is not Level.OK)
    return [each for each in found if each.level is level]


def one(level: Level, results: Iterable[CheckResult]) -> CheckResult:
    """Return the only result of a level; fail if the results contain an unexpected problem."""
    found = list(results)
    (single,) = only(level, found)
    assert level is Level.PROBLEM or not only(Level.PROBLEM, found)
    return single
