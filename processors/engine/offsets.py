"""The offset that may be committed for each partition: all chunks before this offset are done.

Invariant: no offset after an unfinished chunk is committed, even if later chunks are done.
"""

from faust.types import TP


class ChunkOffsets:
    """The chunks in flight, by partition, in the order in which the agents received them.

    A chunk is in flight from its delivery until it and all earlier chunks of its partition are
    done. A chunk is identified by its ``next_offset``, the offset after its last record. Once the
    chunk and all earlier chunks are done, ``next_offset`` may be committed.
    """

    def __init__(self) -> None:
        # The time of each chunk's first record, by the chunk's ``next_offset``.
        self._in_flight: dict[TP, dict[int, int]] = {}
        self._done: dict[TP, set[int]] = {}
        self._committable: dict[TP, int] = {}

    def delivered(self, tp: TP, next_offset: int, oldest_ms: int = 0) -> None:
        """Note that a chunk was handed to an agent; ``oldest_ms`` is its first record's time."""
        self._in_flight.setdefault(tp, {})[next_offset] = oldest_ms

    def done(self, tp: TP, next_offset: int) -> None:
        """Note that a chunk is finished, and that its outputs and state are written."""
        in_flight = self._in_flight.get(tp)
        if not in_flight or next_offset not in in_flight:
            # A rebalance made this worker forget the chunk; the partition's next owner redoes the
            # chunk.
            return
        done = self._done.setdefault(tp, set())
        done.add(next_offset)
        while in_flight and (first := next(iter(in_flight))) in done:
            self._committable[tp] = first
            del in_flight[first]
            done.discard(first)

    def committable(self, tp: TP) -> int | None:
        """Return the offset up to which all chunks are done; ``None`` if no chunk is done."""
        return self._committable.get(tp)

    def in_flight(self, tp: TP) -> int:
        """Return the number of chunks that were delivered but can't be committed yet."""
        return len(self._in_flight.get(tp, ()))

    def oldest_ms(self, tp: TP) -> int | None:
        """Return the time of the first record in flight; ``None`` if no chunk is in flight."""
        return next(iter(self._in_flight.get(tp, {}).values()), None)

    def partitions(self) -> list[TP]:
        """Return the partitions with finished chunks, whether or not the offsets are committed."""
        return list(self._committable)

    def forget(self) -> None:
        """Forget every chunk: a rebalance takes all partitions away (eager protocol)."""
        self._in_flight.clear()
        self._done.clear()
        self._committable.clear()
