"""Which offset of each partition may be committed: up to the first chunk that is not done.

In: chunks as they are delivered and as they are done. Out: the offset to commit. Never: an offset
past a chunk that was delivered and is not done, whatever happened to the chunks behind it.
"""

from faust.types import TP


class ChunkOffsets:
    """The chunks in flight, by partition, in order of delivery; no I/O.

    A chunk is told by its ``next_offset``: the offset after its last record, which is what Kafka
    wants committed once the chunk is done.
    """

    def __init__(self) -> None:
        # In order: the time of each chunk's first record, by its ``next_offset``.
        self._in_flight: dict[TP, dict[int, int]] = {}
        self._done: dict[TP, set[int]] = {}
        self._committable: dict[TP, int] = {}

    def delivered(self, tp: TP, next_offset: int, oldest_ms: int = 0) -> None:
        """Remember that a chunk, whose first record is of that time, was handed to an agent."""
        self._in_flight.setdefault(tp, {})[next_offset] = oldest_ms

    def done(self, tp: TP, next_offset: int) -> None:
        """Remember that the agent has finished a chunk: outputs, then state, are kept."""
        in_flight = self._in_flight.get(tp)
        if not in_flight or next_offset not in in_flight:
            # Forgotten meanwhile, on a rebalance: the partition's next owner does it again.
            return
        done = self._done.setdefault(tp, set())
        done.add(next_offset)
        while in_flight and (first := next(iter(in_flight))) in done:
            self._committable[tp] = first
            del in_flight[first]
            done.discard(first)

    def committable(self, tp: TP) -> int | None:
        """Return the offset up to which all chunks are done; ``None`` if none is."""
        return self._committable.get(tp)

    def in_flight(self, tp: TP) -> int:
        """Return how many chunks were delivered and can't be committed yet."""
        return len(self._in_flight.get(tp, ()))

    def oldest_ms(self, tp: TP) -> int | None:
        """Return the time of the first record that is in flight; ``None`` if none is."""
        return next(iter(self._in_flight.get(tp, {}).values()), None)

    def partitions(self) -> list[TP]:
        """Return the partitions that have something to commit, committed already or not."""
        return list(self._committable)

    def forget(self) -> None:
        """Forget every chunk: on a rebalance all partitions are given back (eager protocol)."""
        self._in_flight.clear()
        self._done.clear()
        self._committable.clear()
