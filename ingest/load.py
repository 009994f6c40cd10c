"""Limits the load in flight: the unanswered deliveries, and the bytes of their bodies.

Input: authenticated deliveries, and arriving bytes of bodies. Output: whether there is room.
Invariants: a delivery never waits for room. If there is no room, the delivery is refused at once,
and its sender retries. Only bytes that have arrived take room, so a sender can't take room by
declaring a large length.
"""

from typing import Final

# The large bodies in memory have at most this total size: eight of the largest possible bodies.
MAX_BYTES_IN_FLIGHT: Final = 64 * 1024 * 1024
# A body of at most this size always finds room, however many large bodies strangers send. Plexy's
# bodies are a few hundred bytes long. The number of connections limits the number of small bodies.
SMALL_BYTES: Final = 16 * 1024


class Deliveries:
    """Counts the deliveries that were admitted but not yet released."""

    def __init__(self, most: int) -> None:
        self._count = 0
        self._most = most

    def admit(self) -> bool:
        """Take a place for one delivery; return ``False`` if no place is left."""
        if self._count >= self._most:
            return False
        self._count += 1
        return True

    def release(self) -> None:
        """Give back a place."""
        self._count -= 1

    @property
    def count(self) -> int:
        """The number of admitted deliveries."""
        return self._count


class BodyMemory:
    """Counts the bytes of the bodies that are larger than ``SMALL_BYTES``."""

    def __init__(self, max_bytes: int = MAX_BYTES_IN_FLIGHT) -> None:
        self._bytes = 0
        self._max_bytes = max_bytes

    def grow(self, before: int, after: int) -> bool:
        """Take room for a body that has grown; return ``False`` if there is not enough room."""
        more = _counted(after) - _counted(before)
        if more and self._bytes + more > self._max_bytes:
            return False
        self._bytes += more
        return True

    def release(self, size_bytes: int) -> None:
        """Give back the room of a body that had grown to this size."""
        self._bytes -= _counted(size_bytes)

    @property
    def size_bytes(self) -> int:
        """The number of counted bytes."""
        return self._bytes


def _counted(size_bytes: int) -> int:
    return size_bytes if size_bytes > SMALL_BYTES else 0
