"""Starts our commands as forks of a process that has already imported our packages.

A new interpreter spends 0.8 s of CPU time on imports, and these tests start some 700 commands. Like
any other process, a fork has its own process id, environment and exit code, and a test can signal
or kill it. If a test sets variables other than `LEDGER_*` for a command, the command runs in a new
interpreter, because a library reads its variables when Python imports the library.
"""

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import plexy_ledger

COMMAND = [sys.executable, "-m", "cli"]
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [__name__, "cli.main", "processors.worker", "ingest.server", "cli.verification.verify"]
)


class Fork:
    """Runs a command in a fork, and has those methods of `subprocess.Popen` that the tests call."""

    def __init__(self, arguments: Sequence[str], env: Mapping[str, str], out: Path, err: Path):
        self._process = _CONTEXT.Process(target=_run, args=(arguments, env, out, err))
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid
        return self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0)
        return self._process.exitcode

    def kill(self) -> None:
        self._process.kill()

    def terminate(self) -> None:
        self._process.terminate()

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)


def _run(arguments: Sequence[str], env: Mapping[str, str], out: Path, err: Path) -> None:
    """Run the command; the forked process calls this function."""
    os.environ.clear()
    os.environ.update(env)
    for path, number in ((out, 1), (err, 2)):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.argv = ["plexy-ledger", *arguments]
    plexy_ledger.main()


def start(
    command: list[str], env: Mapping[str, str], out: Path, err: Path
) -> Fork | subprocess.Popen[bytes]:
    """Start a command with the environment of this process, to which `env` is added."""
    whole = os.environ | dict(env)
    if command[: len(COMMAND)] == COMMAND and all(name.startswith("LEDGER_") for name in env):
        return Fork(command[len(COMMAND) :], whole, out, err)
    with out.open("ab") as stdout, err.open("ab") as stderr:
        return subprocess.Popen(command, env=whole, stdout=stdout, stderr=stderr)
