"""The installed Python and libraries are compared with the package's requirements."""

import platform
from pathlib import Path

import pytest

from cli.doctor.checks import Level
from cli.doctor.versions import (
    check_versions,
    importable,
    internals_of_libraries,
    java,
    libraries,
    python_version,
)
from runtime import internals
from tests.cli.doctor.conftest import one, only, with_settings


def test_the_installed_versions_satisfy_the_requirements_of_the_package(patient):
    found = list(check_versions(patient))
    assert {result.level for result in found} == {Level.OK}
    printed = " ".join(result.what for result in found)
    for name in (
        f"Python {platform.python_version()}",
        "faust-streaming 0.15.3 (expected ==0.15.3)",
        "rocksdict",
        "aiokafka 0.14.0 (expected ==0.14.0)",
        "the internal names that the programs use exist in aiokafka, ",
    ):
        assert name in printed
    # The settings name a Kafka, so the embedded Kafka and its Java are not needed.
    assert "openjdk" not in printed


def test_java_is_checked_if_a_program_uses_the_embedded_kafka(patient, tmp_path):
    embedding = with_settings(patient, "run", kafka_bootstrap="", kafka_cache=tmp_path)
    found = list(check_versions(embedding))
    assert any("openjdk" in result.what for result in only(Level.OK, found))
    result = one(Level.WARNING, found)
    assert f"not in {tmp_path} yet" in result.what
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("version", ["3.10.12", "3.15.0"])
def test_a_wrong_python_is_a_problem_that_names_the_expected_version(version):
    result = one(Level.PROBLEM, python_version(version, ">=3.11,<3.15"))
    assert result.what == f"Python {version}, expected >=3.11,<3.15"
    assert "-m venv FOLDER" in result.remedy


@pytest.mark.parametrize("package", ["ledger", "ingest", "processors", "runtime", "cli"])
def test_no_program_suggests_make_because_make_needs_a_checkout(package):
    files = list((Path(__file__).parents[3] / package).rglob("*.py"))
    assert files
    assert [file for file in files if "`make " in file.read_text()] == []


@pytest.mark.parametrize(
    ("requirement", "expected"),
    [
        ("aiokafka<0.14", "is installed, expected <0.14"),
        ("no-such-library-at-all>=1", "no-such-library-at-all is not installed, expected >=1"),
        ("aiokafka[no-such-extra]", None),
    ],
)
def test_a_missing_or_wrong_library_is_a_problem(requirement, expected):
    problems = only(Level.PROBLEM, libraries([requirement, "msgspec"]))
    assert [expected in each.what for each in problems] == ([True] if expected else [])


def test_a_library_that_cannot_be_loaded_is_a_problem_that_names_the_library_s_purpose():
    result = one(Level.PROBLEM, importable("no_such_module_at_all", "the workers' tables"))
    assert "no_such_module_at_all, for the workers' tables, can't be loaded" in result.what


def test_a_java_that_does_not_start_is_a_problem(tmp_path):
    broken = tmp_path / "java"
    broken.write_text("#!/bin/sh\nexit 3\n")
    for path in (broken, tmp_path / "nowhere"):
        result = one(Level.PROBLEM, java(str(path)))
        assert "can't be started" in result.what
        assert "LEDGER_KAFKA_BOOTSTRAP" in result.remedy
        broken.chmod(0o755)


def test_the_libraries_of_an_optional_extra_may_be_missing():
    assert list(libraries(["no-such-library-at-all==1; extra == 'tracing'"])) == []


def test_a_library_that_lacks_a_name_that_we_use_is_a_problem_that_names_both_versions(monkeypatch):
    places = {"aiokafka.client:AIOKafkaClient": "_gone", "aiokafka.no_such_module": "_x"}
    monkeypatch.setattr(internals, "USED", {"aiokafka": places, "no-such-library-at-all": {}})
    result = one(Level.PROBLEM, internals_of_libraries())
    assert result.what == (
        "aiokafka 0.14.0 has no aiokafka.client:AIOKafkaClient._gone, aiokafka.no_such_module, "
        "which plexy-ledger uses; expected aiokafka 0.14.0"
    )
    assert "requirements/runtime.txt" in result.remedy
