"""Mounts a tmpfs on a folder, as a disk so small that a test can fill it.

The disk is unmounted when its ``with`` block ends, even if the block raises an error.
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
    """A folder on which a small disk is mounted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self) -> None:
        """Write a file until the disk is full."""
        with (self.folder / _FILLER).open("wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(_BLOCK)
            except OSError:
                pass  # The disk is full, as intended.

    def use_up_inodes(self) -> None:
        """Create empty files until the disk has no free inode."""
        folder = self.folder / _FILLER
        with suppress(OSError):
            folder.mkdir()
            for number in count():
                (folder / str(number)).touch()

    def make_room(self) -> None:
        """Delete the files of ``fill`` or ``use_up_inodes``."""
        filler = self.folder / _FILLER
        if filler.is_dir():
            shutil.rmtree(filler)
        filler.unlink(missing_ok=True)

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Make the disk refuse every write until the ``with`` block ends."""
        _run("mount", "-o", "remount,ro", str(self.folder)).check_returncode()
        try:
            yield
        finally:
            _run("mount", "-o", "remount,rw", str(self.folder)).check_returncode()


def can_mount() -> bool:
    """Return whether this process may mount a tmpfs: only root on Linux, outside a container."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return False
    # ``unshare`` makes a mount namespace that ends with the command.
    tried = _run("unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", tempfile.gettempdir())
    return tried.returncode == 0


@contextmanager
def small_disk(folder: Path, size_mb: int, options: str = "") -> Iterator[SmallDisk]:
    """Create the folder if needed, and mount a tmpfs on it until the ``with`` block ends."""
    folder.mkdir(parents=True, exist_ok=True)
    given = ",".join(filter(None, (f"size={size_mb}m", options)))
    _run("mount", "-t", "tmpfs", "-o", given, "tmpfs", str(folder)).check_returncode()
    try:
        yield SmallDisk(folder)
    finally:
        # A lazy unmount works even if a program that is about to end has a file open on the disk.
        _run("umount", "--lazy", str(folder)).check_returncode()


def _run(*command: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(command, capture_output=True, check=False)  # noqa: S603 - our own words
