"""Notifies the watchers of a table's key when a chunk with this key is folded.

While no key is watched, this module does no work for a chunk.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from processors.engine.chunk import Chunk


class Watchers:
    """The watchers of one table's keys."""

    def __init__(self) -> None:
        self._watched: dict[bytes, set[asyncio.Event]] = {}

    def __len__(self) -> int:
        """Return the number of watchers."""
        return sum(map(len, self._watched.values()))

    @contextmanager
    def watch(self, key: bytes) -> Iterator[asyncio.Event]:
        """Yield an event that is set whenever a chunk with the key is folded.

        The watcher clears the event before it waits again.
        """
        folded = asyncio.Event()
        self._watched.setdefault(key, set()).add(folded)
        try:
            yield folded
        finally:
            self._watched[key].discard(folded)
            if not self._watched[key]:
                del self._watched[key]

    def folded(self, chunk: Chunk) -> None:
        """Notify the watchers of a chunk's keys, after the chunk's rows are written."""
        if self._watched:
            for key in self._watched.keys() & chunk.keys:
                for folded in self._watched[key]:
                    folded.set()
