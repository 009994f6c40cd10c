"""Builds a peer that the project does not ship, when the benchmark first uses that peer.

The files of a build are under ``build/``. A peer is rebuilt if its source files, its build commands
or the Python interpreter changed. An interrupted build is never used. Two processes never build the
same peer at the same time.
"""

import fcntl
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Final

from bench.stage import BenchError

BUILD: Final = Path(__file__).resolve().parent.parent / "build" / "peers"
_LAST_LINES: Final = 25


def build_once(what: str, folder: Path, sources: Iterable[Path], *commands: Sequence[str]) -> None:
    """Run the commands unless the folder is up to date; raise ``BenchError`` on failure."""
    # The digest includes the interpreter's path and full version text, because files that were
    # built for one interpreter may not work with another interpreter.
    by = [repr(commands).encode(), str(Path(sys.executable).resolve()).encode()]
    by.append(sys.version.encode())
    made_of = sha256(
        b"\0".join([*by, *(path.read_bytes() for path in sorted(sources))])
    ).hexdigest()
    mark = folder / ".made-of"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _exclusive(folder.with_name(f"{folder.name}.lock")):
        if mark.exists() and mark.read_text() == made_of:
            return
        print(f"Building {what}, once …", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        for command in commands:
            _run(what, command)
        mark.write_text(made_of)


def _run(what: str, command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - ours
    if done.returncode:
        lines = (done.stdout + done.stderr).splitlines()[-_LAST_LINES:]
        shown = "\n".join(f"  {line}" for line in lines)
        raise BenchError(f"{what} can't be built: `{' '.join(command)}` failed:\n{shown}")


@contextmanager
def _exclusive(lock: Path) -> Iterator[None]:
    """Hold the lock against other processes; the kernel frees the lock if this process dies."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
