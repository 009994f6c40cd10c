"""Writes tables without Kafka, as if the changelogs already had the values."""

from collections.abc import Mapping

from processors.engine.databases import NewRows
from processors.engine.tables import ChunkTable
from runtime.kafka.batches import Written


def write_rows(table: ChunkTable, partition: int, values: Mapping[bytes, bytes | None]) -> None:
    """Write values as a fold does after Kafka has acknowledged the values in the changelog."""
    table.open(partition)
    table.fold(partition)
    rows = NewRows()
    before = table.read_chunk(partition, values)
    for key, value in values.items():
        rows.put(key, value, before.get(key))
    first = table.end(partition)
    table.write(partition, rows, Written(first, first + len(values) - 1, len(values)))
