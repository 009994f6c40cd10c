"""Writes a new file, which gets its final name only after it is complete; replaces no file."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from cli.errors import WrongOptionError


@contextmanager
def appears_whole(path: Path) -> Iterator[BinaryIO]:
    """Open a file that receives its final name only after it is complete and on the disk.

    An interrupted command leaves no file. A killed command leaves a file that ends in `.partial`.
    On a file system without links, a command that is killed at the wrong moment also leaves an
    empty file with the final name.
    """
    if path.exists():
        raise WrongOptionError(f"{path} exists already: name a new file")
    if not path.parent.is_dir():
        raise WrongOptionError(f"there is no folder {path.parent} to write {path.name} to")
    number, name = tempfile.mkstemp(".partial", f"{path.name}.", path.parent)
    partial = Path(name)
    try:
        with os.fdopen(number, "wb") as file:
            yield file
            file.flush()
            os.fsync(number)
        _take_name(path, partial)
    finally:
        partial.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _take_name(path: Path, partial: Path) -> None:
    """Give the partial file its final name, unless a different file has taken the name."""
    try:
        if not _linked(path, partial):
            path.touch(exist_ok=False)
            _replace_placeholder(path, partial)
    except FileExistsError:
        raise WrongOptionError(
            f"{path} has appeared meanwhile, and is not replaced: name a new file"
        ) from None


def _linked(path: Path, partial: Path) -> bool:
    """Link the name to the file; return ``False`` if the file system has no links, such as FAT."""
    try:
        path.hardlink_to(partial)
    except FileExistsError:
        raise
    except OSError:
        return False
    return True


def _replace_placeholder(path: Path, partial: Path) -> None:
    """Replace the empty file that reserves the name."""
    try:
        partial.replace(path)
    except BaseException:
        path.unlink()
        raise


def _sync_folder(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
