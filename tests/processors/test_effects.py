"""For each partition of the next hop's topic, a table stores the end of its own hop's outputs."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.structs import TopicPartition

from processors.engine.effects import Effects
from processors.engine.marks import FED_KEY, decode_ends, encode_ends
from processors.engine.tables import ChunkTable
from processors.settings import WorkerSettings
from processors.worker import create_app
from runtime.kafka.batches import LostOutputsError, Written


@pytest.fixture
def table(tmp_path: Path) -> ChunkTable:
    table: ChunkTable = create_app(WorkerSettings(data_dir=tmp_path)).chunk_tables["seen"]
    table.open(0)
    return table


def fed_after(table: ChunkTable, topic: str | None, written: Written) -> dict[int, int] | None:
    """Return the end offsets that a chunk stores after it has written to partition 1 of a topic."""
    producer: Any = SimpleNamespace(create_batch=None)
    effects = Effects(producer, SimpleNamespace(partition=0), table, 4)
    effects._written = {TopicPartition(topic, 1): written}
    return effects._fed()


def test_only_the_end_offsets_in_the_next_hops_topic_are_stored(table):
    assert table.feeds == "ledger.events"
    assert fed_after(table, table.feeds, Written(5, 9, 5)) == {1: 10}
    assert fed_after(table, "plexy.rejected", Written(5, 9, 5)) is None


def test_an_acknowledgement_below_a_stored_end_offset_means_that_records_were_lost(table):
    table._db(0).put(FED_KEY, encode_ends({0: 3, 1: 7}))
    assert table.fed(0) == decode_ends(b"0:3 1:7") == {0: 3, 1: 7}
    assert fed_after(table, table.feeds, Written(7, 8, 2)) == {0: 3, 1: 9}
    # If a batch that Kafka accepted long ago is sent again, Kafka returns no offset.
    assert fed_after(table, table.feeds, Written(-1, 0, 2)) == {0: 3, 1: 7}
    with pytest.raises(LostOutputsError, match=r"ledger\.events\[1\] has lost records"):
        fed_after(table, table.feeds, Written(5, 9, 5))
