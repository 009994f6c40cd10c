"""Decodes the rows of a table.

A row that can't be decoded shows that the table is damaged; it is not bad data from outside. If a
fold skipped the row, it would publish a wrong order. So the worker ends, and the last line of the
worker's log output names the row.
"""

from collections.abc import Callable, Mapping
from typing import TypeVar

from ledger.wire import UNDECODABLE
from processors.engine.tables import ChunkTable

T = TypeVar("T")


class CorruptRowError(RuntimeError):
    """A table has a row that no worker wrote; the message names the row and the remedy."""


def decode_rows(
    table: ChunkTable, partition: int, stored: Mapping[bytes, bytes], decode: Callable[[bytes], T]
) -> dict[bytes, T]:
    """Return the values of some rows; raise ``CorruptRowError`` for a row that can't be decoded."""
    return {key: decode_row(table, partition, key, row, decode) for key, row in stored.items()}


def decode_row(
    table: ChunkTable, partition: int, key: bytes | None, row: bytes, decode: Callable[[bytes], T]
) -> T:
    """Return the value of one row; ``key`` is ``None`` if the caller does not know the key."""
    try:
        return decode(row)
    except UNDECODABLE as error:
        where = "a row, which `verify` names," if key is None else f"the row of key {key!r:.80}"
        raise CorruptRowError(
            f"{where} in partition {partition} of the table {table.name} can't be decoded "
            f"({error}): something else has written to {table.changelog_name}. `plexy-ledger "
            "rebuild` folds the log of record into new tables"
        ) from error
