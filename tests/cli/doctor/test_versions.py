"""Python and the libraries: what is asked for against what is installed."""

import platform
from pathlib import Path

import pytest

from cli.doctor.findings import Level
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


def test_what_is_installed_here_is_what_the_package_asks_for(patient):
    found = list(check_versions(patient))
    assert {finding.level for finding in found} == {Level.OK}
    told = " ".join(finding.what for finding in found)
    for name in (
        f"Python {platform.python_version()}",
        "faust-streaming 0.15.3 (expected ==0.15.3)",
        "rocksdict",
        "aiokafka 0.14.0 (expected ==0.14.0)",
        "the internal names that the programs use exist in aiokafka, ",
    ):
        assert name in told
    # A Kafka is named: the embedded one, and its Java, are not needed.
    assert "openjdk" not in told


def test_where_the_embedded_kafka_would_run_its_java_is_started(patient, tmp_path):
    embedding = with_settings(patient, "run", kafka_bootstrap="", kafka_cache=tmp_path)
    found = list(check_versions(embedding))
    assert any("openjdk" in finding.what for finding in only(Level.OK, found))
    finding = one(Level.WARNING, found)
    assert f"not in {tmp_path} yet" in finding.what
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("version", ["3.10.12", "3.15.0"])
def test_another_python_is_named_with_the_one_that_is_needed(version):
    finding = one(Level.PROBLEM, python_version(version, ">=3.11,<3.15"))
    assert finding.what == f"Python {version}, expected >=3.11,<3.15"
    assert "-m venv FOLDER" in finding.remedy


@pytest.mark.parametrize("package", ["ledger", "ingest", "processors", "runtime", "cli"])
def test_no_installed_program_tells_to_make_what_only_a_checkout_has(package):
    files = list((Path(__file__).parents[3] / package).rglob("*.py"))
    assert files
    assert [file for file in files if "`make " in file.read_text()] == []


@pytest.mark.parametrize(
    ("requirement", "told"),
    [
        ("aiokafka<0.14", "is installed, expected <0.14"),
        ("no-such-library-at-all>=1", "no-such-library-at-all is not installed, expected >=1"),
        ("aiokafka[no-such-extra]", None),
    ],
)
def test_a_library_that_is_not_as_asked_for_is_named(requirement, told):
    problems = only(Level.PROBLEM, libraries([requirement, "msgspec"]))
    assert [told in each.what for each in problems] == ([True] if told else [])


def test_a_binding_that_cannot_be_loaded_is_named_with_its_purpose():
    finding = one(Level.PROBLEM, importable("no_such_module_at_all", "the workers' tables"))
    assert "no_such_module_at_all, for the workers' tables, can't be loaded" in finding.what


def test_a_java_that_does_not_start_is_named(tmp_path):
    broken = tmp_path / "java"
    broken.write_text("#!/bin/sh\nexit 3\n")
    for path in (broken, tmp_path / "nowhere"):
        finding = one(Level.PROBLEM, java(str(path)))
        assert "can't be started" in finding.what
        assert "LEDGER_KAFKA_BOOTSTRAP" in finding.remedy
        broken.chmod(0o755)


def test_an_extra_of_ours_that_is_not_installed_is_no_problem():
    assert list(libraries(["no-such-library-at-all==1; extra == 'tracing'"])) == []


def test_a_library_without_a_name_that_is_used_is_named_with_both_versions(monkeypatch):
    places = {"aiokafka.client:AIOKafkaClient": "_gone", "aiokafka.no_such_module": "_x"}
    monkeypatch.setattr(internals, "USED", {"aiokafka": places, "no-such-library-at-all": {}})
    finding = one(Level.PROBLEM, internals_of_libraries())
    assert finding.what == (
        "aiokafka 0.14.0 has no aiokafka.client:AIOKafkaClient._gone, aiokafka.no_such_module, "
        "which plexy-ledger uses; expected aiokafka 0.14.0"
    )
    assert "requirements/runtime.txt" in finding.remedy
