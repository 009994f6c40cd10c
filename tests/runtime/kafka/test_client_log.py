"""``ClientLog`` remembers aiokafka's last warning, and keeps aiokafka's lines out of our log."""

import logging
from collections.abc import Iterator

import pytest

from runtime.kafka.client_log import ClientLog

aiokafka = logging.getLogger("aiokafka.conn")


@pytest.fixture(autouse=True)
def _left_as_found() -> Iterator[None]:
    logger = logging.getLogger("aiokafka")
    before = (list(logger.handlers), logger.propagate)
    yield
    assert (list(logger.handlers), logger.propagate) == before


def test_the_last_warning_is_kept_as_one_line(caplog):
    with ClientLog() as log:
        assert log.last_line == ""
        aiokafka.warning("first")
        aiokafka.error("Unable connect to %s:\n  refused", "node 1")
    assert log.last_line == "Unable connect to node 1: refused"
    assert caplog.records == []


def test_a_line_below_warning_is_not_kept(caplog):
    caplog.set_level(logging.DEBUG, "aiokafka")
    with ClientLog() as log:
        aiokafka.info("connected")
    assert log.last_line == ""


def test_lines_after_the_with_block_reach_the_log_again(caplog):
    with ClientLog() as log:
        aiokafka.warning("within")
    aiokafka.warning("after")
    assert [record.getMessage() for record in caplog.records] == ["after"]
    assert log.last_line == "within"


def test_lines_after_an_exception_reach_the_log_again(caplog):
    with pytest.raises(OSError, match="absent"), ClientLog():
        raise OSError("absent")
    aiokafka.warning("after")
    assert [record.getMessage() for record in caplog.records] == ["after"]


def test_two_nested_client_logs_both_get_a_line_and_keep_it_out_of_the_log(caplog):
    with ClientLog() as outer:
        with ClientLog() as inner:
            aiokafka.warning("to both")
        aiokafka.warning("to the outer")
    assert (outer.last_line, inner.last_line) == ("to the outer", "to both")
    assert caplog.records == []


def test_lines_of_other_libraries_reach_the_log(caplog):
    with ClientLog() as log:
        logging.getLogger("faust").warning("mine")
    assert log.last_line == ""
    assert [record.getMessage() for record in caplog.records] == ["mine"]
