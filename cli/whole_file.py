"""A new file that has its name only once it is whole.

In: a path where nothing is. Out: a file to write to, and its name after the block. Never: a file
under that name that is not complete and on the disk; and never another's file.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from cli.errors import WrongOptionError


@contextmanager
def appears_whole(path: Path) -> Iterator[BinaryIO]:
    """Open a file that has its name only once it is complete and on the disk.

    What is interrupted leaves nothing; what is killed, a file that ends in `.partial`, and, on a
    file system without links, in one moment an empty one.
    """
    if path.exists():
        raise WrongOptionError(f"{path} is there already: name a file that is not")
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
    """Give a file its name, unless another has taken it meanwhile."""
    try:
        if not _linked(path, partial):
            path.touch(exist_ok=False)
            _replace_ours(path, partial)
    except FileExistsError:
        raise WrongOptionError(
            f"{path} has appeared meanwhile, and stays as it is: name a file that is not there"
        ) from None


def _linked(path: Path, partial: Path) -> bool:
    """Give a file a second name; return whether the file system, unlike FAT, can do that."""
    try:
        path.hardlink_to(partial)
    except FileExistsError:
        raise
    except OSError:
        return False
    return True


def _replace_ours(path: Path, partial: Path) -> None:
    """Put a file in the place of an empty one that keeps its name free."""
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
