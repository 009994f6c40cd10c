"""Folders of data, which only the user that runs the programs may enter.

In: a path below ``LEDGER_DATA_DIR``. Out: that folder, with mode 0700. A folder that was there
before is closed too if it is this user's own. ``LEDGER_DATA_DIR`` itself is not closed where it was
there before: it may be any folder that the operator chose, such as the root of a volume.
"""

import contextlib
import os
from pathlib import Path
from typing import Final

_PRIVATE: Final = 0o700


def private_folder(folder: Path) -> Path:
    """Make a folder, and those above it that are missing, for this user alone.

    The ``OSError`` of a folder that can't be made names the setting.
    """
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        for each in reversed(missing):
            each.mkdir(_PRIVATE, exist_ok=True)
    except OSError as error:
        what = f"{error.strerror}; set LEDGER_DATA_DIR to a folder that this user can write"
        raise OSError(error.errno, what, error.filename) from None
    if folder.stat().st_uid == os.geteuid():
        # Some network shares refuse to change modes. Their folders are used all the same.
        with contextlib.suppress(PermissionError):
            folder.chmod(_PRIVATE)
    return folder
