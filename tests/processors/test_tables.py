"""A worker's memory is shared among its databases, and Faust's generous defaults are not used."""

import pytest
from faust.stores.rocksdb import RocksDBOptions

from ledger.topics import TABLES
from processors.tables import rocksdb_options

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
