"""Creates data folders that only the current user may enter.

Input: a path below ``LEDGER_DATA_DIR``. Output: that folder, with mode 0700. If the folder already
exists and this user owns it, it gets this mode too. An existing ``LEDGER_DATA_DIR`` keeps its mode,
because the operator may have chosen any folder, such as the root of a volume.
"""

import contextlib
import os
from pathlib import Path
from typing import Final

_PRIVATE: Final = 0o700


def private_folder(folder: Path) -> Path:
    """Create a folder and its missing parents, so that only this user may enter them.

    If a folder can't be created, the ``OSError`` names the setting.
    """
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        for each in reversed(missing):
            each.mkdir(_PRIVATE, exist_ok=True)
    except OSError as error:
        what = f"{error.strerror}; set LEDGER_DATA_DIR to a folder that this user can write"
        raise OSError(error.errno, what, error.filename) from None
    if folder.stat().st_uid == os.geteuid():
        # Some network shares refuse to change modes; a folder on such a share keeps its mode.
        with contextlib.suppress(PermissionError):
            folder.chmod(_PRIVATE)
    return folder
