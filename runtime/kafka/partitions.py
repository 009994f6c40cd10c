"""Which partition a key belongs to: the one rule that every writer and every reader must share.

In: a key and how many partitions there are. Out: the partition, as Kafka's default partitioner
chooses it, so that any Kafka client finds the same one.
"""

from typing import Final

from murmurhash2 import murmurhash2

# Source: `Utils.murmur2` and `Utils.toPositive` in Apache Kafka's Java client. aiokafka has the
# same in Python: 8 µs for a key of 50 bytes, where this takes 0.2, four times for each event.
_SEED: Final = 0x9747B28C
_POSITIVE: Final = 0x7FFFFFFF


def partition_for(key: bytes, partitions: int) -> int:
    """Return the partition of a key, as Kafka's default partitioner does (murmur2)."""
    hashed: int = murmurhash2(key, _SEED)
    return (hashed & _POSITIVE) % partitions
