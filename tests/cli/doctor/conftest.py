"""Shared by the tests of the doctor's checks: a patient, and ways to select findings."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from cli.doctor.findings import Finding, Level, Patient
from cli.kafka.process import free_port
from cli.settings_table import READ_BY

SECRET = "whsec_of_the_test"


@pytest.fixture
def patient(tmp_path: Path) -> Patient:
    """Return a correct environment, for every program."""
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
    """Return a patient with other settings; an empty text removes a setting."""
    given = {f"LEDGER_{name.upper()}": str(value) for name, value in settings.items()}
    return Patient({**patient.environment, **given}, programs or patient.programs, patient.cluster)


def only(level: Level, findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings of one level; each finding that is not OK must name a remedy."""
    found = list(findings)
    assert all(each.remedy for each in found if each.level is not Level.OK)
    return [each for each in found if each.level is level]


def one(level: Level, findings: Iterable[Finding]) -> Finding:
    """Return the only finding of a level, and fail if any finding is worse."""
    found = list(findings)
    (single,) = only(level, found)
    assert level is Level.PROBLEM or not only(Level.PROBLEM, found)
    return single
