"""How much is in flight: deliveries that are not answered yet, and the bytes they may hold.

In: a delivery's size, as declared. Out: whether there is room. Never: a queue; what finds no room
is refused at once, and its sender comes again.
"""

from typing import Final

# Bodies in memory at a time, whatever their number: eight of the largest that can be allowed.
MAX_BYTES_IN_FLIGHT: Final = 64 * 1024 * 1024


class Load:
    """Counts what was admitted and not yet released."""

    def __init__(self, max_deliveries: int, max_bytes: int = MAX_BYTES_IN_FLIGHT) -> None:
        self._deliveries = 0
        self._bytes = 0
        self._max_deliveries = max_deliveries
        self._max_bytes = max_bytes

    def admit(self, size_bytes: int) -> bool:
        """Take a place for a delivery of at most so many bytes; ``False`` if there is none."""
        if self._deliveries >= self._max_deliveries or self._bytes + size_bytes > self._max_bytes:
            return False
        self._deliveries += 1
        self._bytes += size_bytes
        return True

    def release(self, size_bytes: int) -> None:
        """Give back the place of a delivery that was admitted with this size."""
        self._deliveries -= 1
        self._bytes -= size_bytes
