"""A disk so small that it can be filled: a tmpfs of its own, mounted on a folder.

In: a folder and a size. Out: the folder with that much room, for as long as the block. Never: a
mount that stays behind, also after an error.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Final

_FILLER: Final = "filler"
_BLOCK: Final = bytes(1024 * 1024)


class SmallDisk:
    """A mounted folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self) -> None:
        """Take all the room that is left, to the last byte."""
        with (self.folder / _FILLER).open("wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(_BLOCK)
            except OSError:
                pass  # full: what was meant

    def use_up_inodes(self) -> None:
        """Create files until there is no inode left for another one."""
        folder = self.folder / _FILLER
        with suppress(OSError):
            folder.mkdir()
            for number in count():
                (folder / str(number)).touch()

    def make_room(self) -> None:
        """Give back what ``fill`` or ``use_up_inodes`` took."""
        filler = self.folder / _FILLER
        if filler.is_dir():
            shutil.rmtree(filler)
        filler.unlink(missing_ok=True)

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Refuse every write for as long as the block."""
        _run("mount", "-o", "remount,ro", str(self.folder)).check_returncode()
        try:
            yield
        finally:
            _run("mount", "-o", "remount,rw", str(self.folder)).check_returncode()


def can_mount() -> bool:
    """Tell whether this process may mount a tmpfs: on Linux root may, but not in a container."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return False
    # In a mount namespace of its own, which ends with the command.
    tried = _run("unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", tempfile.gettempdir())
    return tried.returncode == 0


@contextmanager
def small_disk(folder: Path, size_mb: int, options: str = "") -> Iterator[SmallDisk]:
    """Mount a tmpfs on the folder, which is made if it is not there, and unmount it after all."""
    folder.mkdir(parents=True, exist_ok=True)
    given = ",".join(filter(None, (f"size={size_mb}m", options)))
    _run("mount", "-t", "tmpfs", "-o", given, "tmpfs", str(folder)).check_returncode()
    try:
        yield SmallDisk(folder)
    finally:
        # Lazily: whoever still has a file open there may take a moment to end.
        _run("umount", "--lazy", str(folder)).check_returncode()


def _run(*command: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(command, capture_output=True, check=False)  # noqa: S603 - ours, all of it
