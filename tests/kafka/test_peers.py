"""Kafka Streams, Quix Streams and plain Faust compute the same totals as the ledger's rules."""

import pytest

from bench.fold import Input, measure, warm_up_of
from bench.peers.faust_plain import FaustPlain
from bench.peers.kafka_streams import FourThreads
from bench.peers.quix_streams import QuixStreams
from bench.recording import record
from bench.stage import Setup
from tests.kafka.harness import PARTITIONS

EVENTS = 2_000


@pytest.fixture(scope="module")
def given() -> Input:
    return Input.of(record(EVENTS + warm_up_of(EVENTS), seed=7), EVENTS)


@pytest.mark.timeout(400)  # the first run fetches the libraries
@pytest.mark.parametrize("program", [FourThreads, QuixStreams, FaustPlain])
async def test_each_peer_program_ends_with_the_same_order_totals_as_the_ledger(
    program, kafka, tmp_path, given
):
    if reason := program.lacks():
        pytest.skip(reason)
    program.prepare()
    place = Setup(
        bootstrap=kafka.bootstrap, name=program.name, folder=tmp_path, partitions=PARTITIONS
    )
    shares = []
    run = await measure(program, place, given, shares.append)
    assert run.differences == []
    assert run.events == EVENTS
    assert shares[-1] == 1.0
