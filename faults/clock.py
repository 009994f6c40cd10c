"""The clock that a program sees: `libfaketime` moves it, and leaves the monotonic clock alone.

Input: a file, and by how many seconds the clock is ahead. Output: the environment of the program,
which sees the clock within a second.
"""

from pathlib import Path
from typing import Final

LIBRARY: Final = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
"""``None`` where libfaketime is not installed."""


class ProgramClock:
    """The clock of one program, right at first."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.set(0)

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which a program sees this clock."""
        return {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, ahead_s: int) -> None:
        """Have the clock be ahead of the right time; a negative number is behind."""
        new = self._file.with_suffix(".new")
        new.parent.mkdir(parents=True, exist_ok=True)
        new.write_text(f"{ahead_s:+d}")
        new.replace(self._file)
