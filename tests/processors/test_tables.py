"""A worker's memory is shared among its databases, and Faust's generous defaults are not used.

Keys of a table are read in their order, from either end of a range.
"""

from pathlib import Path

import pytest
from faust.stores.rocksdb import RocksDBOptions

from ledger.topics import TABLES
from processors.settings import WorkerSettings
from processors.tables import PartitionRows, Rows, rocksdb_options
from processors.worker import create_app

MIB = 1024 * 1024


def taken(options: dict[str, int]) -> int:
    """Return the bytes that one database may take: its caches, and all its write buffers."""
    buffers = options["write_buffer_size"] * options["max_write_buffer_number"]
    return options["block_cache_size"] + options["block_cache_compressed_size"] + buffers


@pytest.mark.parametrize("partitions", [1, 4, 12])
@pytest.mark.parametrize("memory_mb", [48, 256, 4096])
def test_all_databases_together_stay_within_the_memory_that_is_set(memory_mb, partitions):
    databases = len(TABLES) * partitions
    everything = databases * taken(rocksdb_options(memory_mb, databases))
    assert everything <= memory_mb * MIB
    assert everything > memory_mb * MIB * 0.9


def test_half_is_for_caches_and_half_for_write_buffers():
    options = rocksdb_options(256, 4)
    assert options["block_cache_size"] == 32 * MIB
    assert options["write_buffer_size"] * options["max_write_buffer_number"] == 32 * MIB


def test_faust_takes_every_option_and_keeps_none_of_its_own_caches():
    options = RocksDBOptions(**rocksdb_options(256, 12))
    assert options.extra_options == {}
    assert options.block_cache_size < 11 * MIB
    assert options.block_cache_compressed_size == 0
    assert options.max_write_buffer_number == 2


def test_keys_are_read_in_their_order_from_either_end_of_a_range(tmp_path: Path):
    table = create_app(WorkerSettings(data_dir=tmp_path, partitions=1)).chunk_tables["orders"]
    keys = [b"a", b"a\xffp1", b"a\xfft1", b"a\xfft2", b"a\xfft3", b"a\xffu", b"b"]
    table.write(0, Rows((key, b"row") for key in keys), 0)
    rows = PartitionRows(table, 0)
    for start, end in [
        (b"a\xfft", b"a\xffu"),
        (b"a\xfft1", b"a\xfft3"),
        (b"", b"\xfe"),
        (b"b", b"c"),
        (b"c", b"d"),
        (b"", b"a"),
    ]:
        expected = [key for key in keys if start <= key < end]
        assert list(rows.keys(start, end, backwards=False)) == expected
        assert list(rows.keys(start, end, backwards=True)) == expected[::-1]
    assert rows.get(b"a\xfft1") == b"row"
    assert rows.get(b"a\xfft4") is None
