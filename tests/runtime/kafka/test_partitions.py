"""A key goes to the partition to which Kafka's own clients would send it."""

import pytest
from aiokafka.partitioner import murmur2
from hypothesis import given
from hypothesis import strategies as st

from runtime.kafka.partitions import partition_for

# These are the test values of Kafka itself, from `testMurmur2` in `UtilsTest.java`. The hashes are
# signed integers, as in Java.
MURMUR2 = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize(("key", "hashed"), MURMUR2.items())
@pytest.mark.parametrize("partitions", [1, 3, 4, 12, 1000])
def test_a_key_goes_to_the_partition_of_kafkas_default_partitioner(key, hashed, partitions):
    # Kafka's `toPositive` clears the sign bit; `abs` would choose a different partition.
    assert partition_for(key, partitions) == (hashed & 0x7FFFFFFF) % partitions


@given(st.binary(max_size=40), st.integers(1, 1000))
def test_every_key_has_a_valid_partition(key, partitions):
    assert 0 <= partition_for(key, partitions) < partitions
    assert partition_for(key, partitions) == partition_for(bytes(key), partitions)


@given(st.binary(max_size=200))
def test_a_key_goes_to_the_partition_of_aiokafkas_partitioner(key):
    assert partition_for(key, 2**31 - 1) == (murmur2(key) & 0x7FFFFFFF) % (2**31 - 1)
