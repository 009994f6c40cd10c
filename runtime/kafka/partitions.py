"""Chooses the partition of a key, by the same rule for all writers and readers.

Kafka's default partitioner has this rule too, so any Kafka client finds the same partition.
"""

from typing import Final

from murmurhash2 import murmurhash2

# Source: `Utils.murmur2` and `Utils.toPositive` in Apache Kafka's Java client. aiokafka's version
# in Python takes 8 µs for a key of 50 bytes; this version takes 0.2 µs. For each event, four keys
# are hashed.
_SEED: Final = 0x9747B28C
_POSITIVE: Final = 0x7FFFFFFF


def partition_for(key: bytes, partitions: int) -> int:
    """Return the partition of a key, as Kafka's default partitioner does (murmur2)."""
    hashed: int = murmurhash2(key, _SEED)
    return (hashed & _POSITIVE) % partitions
