"""The producer's settings make sure that an acknowledged delivery is kept."""

from ingest.producer import producer_options
from ledger.topics import MAX_RECORD_BYTES
from tests.ingest.conftest import settings


def test_every_replica_in_sync_has_each_record_once():
    options = producer_options(settings())
    assert (options["acks"], options["enable_idempotence"]) == ("all", True)
    assert (options["linger_ms"], options["max_request_size"]) == (0, MAX_RECORD_BYTES)


def test_a_lost_request_can_be_retried_before_the_answer_is_due():
    options = producer_options(settings(answer_within_s=10.0))
    assert options["request_timeout_ms"] * 2 < 10_000


def test_the_connection_settings_are_the_same_as_in_every_other_program():
    options = producer_options(settings(kafka_bootstrap="a:1, b:2", kafka_tls=True))
    assert options["bootstrap_servers"] == ["a:1", "b:2"]
    assert options["security_protocol"] == "SSL"
