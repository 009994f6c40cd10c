"""Who watches a key of a table, told when a chunk that has the key is folded.

In: keys that somebody watches; chunks whose effects are written. Out: events that are set. Never: a
cost for a chunk while nobody watches.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from processors.engine.chunk import Chunk


class Watchers:
    """Who watches keys of one table."""

    def __init__(self) -> None:
        self._watched: dict[bytes, set[asyncio.Event]] = {}

    def __len__(self) -> int:
        """Return how many watch."""
        return sum(map(len, self._watched.values()))

    @contextmanager
    def watch(self, key: bytes) -> Iterator[asyncio.Event]:
        """Set the event whenever a chunk with the key is folded; whoever watches clears it."""
        folded = asyncio.Event()
        self._watched.setdefault(key, set()).add(folded)
        try:
            yield folded
        finally:
            self._watched[key].discard(folded)
            if not self._watched[key]:
                del self._watched[key]

    def folded(self, chunk: Chunk) -> None:
        """Tell whoever watches a key of a chunk, whose values are in the table now."""
        if self._watched:
            for key in self._watched.keys() & chunk.keys:
                for folded in self._watched[key]:
                    folded.set()
