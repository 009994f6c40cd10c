"""How much is in flight: deliveries that are not answered yet, and the bytes of their bodies.

In: deliveries whose signature is good; bytes of bodies, as they arrive. Out: whether there is room.
Never: a queue; what finds no room is refused at once, and its sender comes again. And never a place
for a promise: who declares a large body, or sends one without end, takes nothing from the others.
"""

from typing import Final

# Of all large bodies in memory at a time, whatever their number: eight of the largest there can be.
MAX_BYTES_IN_FLIGHT: Final = 64 * 1024 * 1024
# A body this small always finds room, however many large ones strangers send: Plexy's have some
# hundred bytes. The number of connections bounds how many there are.
SMALL_BYTES: Final = 16 * 1024


class Deliveries:
    """Counts the deliveries that were admitted and not yet released."""

    def __init__(self, most: int) -> None:
        self._count = 0
        self._most = most

    def admit(self) -> bool:
        """Take a place; ``False`` if there is none."""
        if self._count >= self._most:
            return False
        self._count += 1
        return True

    def release(self) -> None:
        """Give a place back."""
        self._count -= 1

    @property
    def count(self) -> int:
        """How many there are."""
        return self._count


class BodyMemory:
    """Counts the bytes of the bodies that are larger than ``SMALL_BYTES``."""

    def __init__(self, max_bytes: int = MAX_BYTES_IN_FLIGHT) -> None:
        self._bytes = 0
        self._max_bytes = max_bytes

    def grow(self, before: int, after: int) -> bool:
        """Take room for a body that has grown; ``False``, and nothing taken, if there is none."""
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
        """How many bytes there are."""
        return self._bytes


def _counted(size_bytes: int) -> int:
    return size_bytes if size_bytes > SMALL_BYTES else 0
