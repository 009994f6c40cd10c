"""Uses `libfaketime` to move the clock that a program sees, but not its monotonic clock.

A file contains the number of seconds by which the clock is wrong; the program reads this file every
second.
"""

from pathlib import Path
from typing import Final

LIBRARY: Final = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
"""The path of libfaketime, or ``None`` if it is not installed."""


class ProgramClock:
    """The clock of one program, which is right at first."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.set(0)

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that make a program use this clock."""
        return {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, ahead_s: int) -> None:
        """Set the clock ``ahead_s`` seconds ahead of the right time (behind it, if negative)."""
        new = self._file.with_suffix(".new")
        new.parent.mkdir(parents=True, exist_ok=True)
        new.write_text(f"{ahead_s:+d}")
        new.replace(self._file)
