"""`doctor` checks brokers, clocks, versions and replicas; tests/kafka tests `doctor` with Kafka."""

import socket

import pytest

from cli.doctor.checks import Level
from cli.doctor.clock import ClockOffset
from cli.doctor.kafka import check_kafka, clock, protocol, replication
from cli.doctor.topics import check_topics, judge
from runtime.fault import Fault
from runtime.kafka.topic_looks import Examination
from runtime.kafka.topic_metadata import PartitionState
from runtime.kafka.topic_records import lost_fault
from runtime.kafka.topic_states import TopicState
from runtime.kafka.topics import TopicSettings
from tests.cli.doctor.conftest import one, only, with_settings

TOLERANCE_S = 300


@pytest.mark.parametrize(
    ("ahead_s", "within_s", "level"),
    [
        (0.0, 0.01, Level.OK),
        (-29.0, 0.01, Level.OK),
        (31.0, 0.5, Level.WARNING),
        (-299.0, 0.01, Level.WARNING),
        (301.0, 0.5, Level.PROBLEM),
        (-301.0, 0.5, Level.PROBLEM),
        # A slow answer leaves the difference uncertain.
        (301.0, 5.0, Level.WARNING),
    ],
)
def test_the_difference_between_the_clocks_is_compared_with_the_signature_tolerance(
    ahead_s, within_s, level
):
    result = one(level, [clock(ClockOffset(ahead_s, within_s), TOLERANCE_S)])
    assert f"{abs(ahead_s):.1f} s" in result.what
    assert ("behind ours" in result.what) == (ahead_s <= 0)
    if level is Level.PROBLEM:
        assert "LEDGER_SIGNATURE_TOLERANCE_S=300" in result.what


@pytest.mark.parametrize(
    ("brokers", "replicas", "least", "level", "expected"),
    [
        (1, 1, 1, Level.OK, ""),
        (3, 3, 2, Level.OK, ""),
        (2, 3, 2, Level.PROBLEM, "LEDGER_REPLICATION_FACTOR=3, but Kafka has 2 brokers"),
        (3, 1, 1, Level.WARNING, "though Kafka has 3 brokers"),
        (3, 3, 3, Level.WARNING, "while one broker is down, Kafka acknowledges no record"),
        (3, 3, 1, Level.WARNING, "Kafka acknowledges a record that only one broker has"),
    ],
)
def test_the_replication_settings_are_compared_with_the_number_of_brokers(
    brokers, replicas, least, level, expected
):
    settings = TopicSettings(replication_factor=replicas, min_insync_replicas=least)
    found = list(replication(brokers, settings))
    assert [expected in each.what for each in found] == ([True] if expected else [])
    assert all(each.level is level for each in found)


def test_a_broker_that_accepts_no_version_of_a_request_is_a_problem():
    versions = {0: (3, 13), 1: (4, 17), 3: (0, 13), 10: (0, 6), 11: (2, 9), 22: (0, 6)}
    one(Level.OK, protocol(versions))
    assert "no version of Produce" in one(Level.PROBLEM, protocol({**versions, 0: (90, 99)})).what
    assert "support static members" in one(Level.PROBLEM, protocol({**versions, 11: (0, 2)})).what


def state(name: str, *in_sync: int) -> TopicState:
    return TopicState(name, tuple(PartitionState(n, 3, each) for n, each in enumerate(in_sync)), {})


def test_every_fault_of_the_topics_is_reported_and_not_only_the_first_fault():
    examination = Examination(
        missing=("never",),
        lost={"gone": lost_fault(["gone"], "A group has folded it")},
        miscounted=(Fault("topic a has 8 partitions", "a new ledger"),),
        faults=(Fault("topic a has x=1, expected 2", "change it"),),
        states=(state("a", 3, 3), state("b", 3, 2), state("c", 3, 1)),
        in_sync=2,
    )
    found = list(judge(examination))
    problems = only(Level.PROBLEM, found)
    assert [each.what.partition(". ")[0].partition(", but")[0] for each in problems] == [
        "missing topics: gone",
        "topic a has 8 partitions",
        "missing topics: never",
        "topic a has x=1, expected 2",
        "topic c, partition 1: 1 of 3 replicas are in sync",
    ]
    (behind,) = only(Level.WARNING, found)
    assert behind.what == "topic b, partition 1: 2 of 3 replicas are in sync"
    assert only(Level.OK, found) == []


def test_topics_that_have_no_fault_are_counted():
    examination = Examination(states=(state("a", 3), state("b", 3)))
    assert one(Level.OK, judge(examination)).what == "all 2 topics are as expected"


def test_an_absent_kafka_is_a_problem_and_then_the_topics_are_not_checked(patient):
    bootstrap = patient.environment["LEDGER_KAFKA_BOOTSTRAP"]
    result = one(Level.PROBLEM, check_kafka(patient))
    assert f"Kafka does not answer at {bootstrap}" in result.what
    assert "LEDGER_KAFKA_BOOTSTRAP" in result.remedy
    assert patient.cluster is None
    assert "were not checked" in one(Level.WARNING, check_topics(patient)).what


def test_there_is_a_separate_remedy_if_a_program_listens_but_does_not_answer_like_kafka(patient):
    with socket.create_server(("127.0.0.1", 0)) as mute:
        at = f"127.0.0.1:{mute.getsockname()[1]}"
        result = one(Level.PROBLEM, check_kafka(with_settings(patient, kafka_bootstrap=at)))
    assert "a program listens there" in result.remedy
    assert "LEDGER_KAFKA_TLS" in result.remedy


def test_a_certificate_file_that_contains_no_certificates_is_a_problem(patient, tmp_path):
    file = tmp_path / "ca.pem"
    file.write_text("none")
    secured = with_settings(patient, kafka_tls="true", kafka_ca_file=file)
    assert f"LEDGER_KAFKA_CA_FILE={file}" in one(Level.PROBLEM, check_kafka(secured)).what


@pytest.mark.parametrize(
    ("variable", "more", "remedy"),
    [
        (
            "kafka_password_file",
            {"kafka_sasl_mechanism": "PLAIN", "kafka_username": "u"},
            "let this user read it",
        ),
        ("kafka_ca_file", {"kafka_tls": "true"}, "which this user can read"),
    ],
)
def test_a_credentials_file_that_cannot_be_read_is_a_problem_with_a_remedy(
    patient, variable, more, remedy
):
    """Even root can't read ``/proc/self/mem``, because its first page is not mapped."""
    settings = {variable: "/proc/self/mem", **more}
    result = one(Level.PROBLEM, check_kafka(with_settings(patient, **settings)))
    assert f"LEDGER_{variable.upper()}=/proc/self/mem" in result.what
    assert "Input/output error" in result.what
    assert remedy in result.remedy


def test_kafka_is_not_checked_for_a_program_that_does_not_use_kafka(patient):
    assert list(check_kafka(with_settings(patient, "send"))) == []
    assert list(check_topics(with_settings(patient, "send"))) == []
