"""Completion works in real shells: the program installs completion, and Tab uses it in a terminal.

Every installed shell is tested. The program runs from this checkout as `plexy-ledger`.
"""

import contextlib
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.kafka.harness import until

ROOT = Path(__file__).parents[3]
PROMPT = "ready> "
# Before the installation, each start-up file only sets a prompt, so that a test can wait for it.
_STARTS = {
    "bash": (".bashrc", f"PS1='{PROMPT}'\n"),
    "zsh": (".zshrc", f"PS1='{PROMPT}'\n"),
    "fish": (".config/fish/config.fish", f"function fish_prompt; echo -n '{PROMPT}'; end\n"),
}
SHELLS = [
    pytest.param(
        name, marks=pytest.mark.skipif(not shutil.which(name), reason=f"{name} is not installed")
    )
    for name in _STARTS
]
TYPED = {
    "reb": "rebuild",
    "rejected sh": "rejected show",
    "verify --old": "verify --old-secrets",
    "send --currency KZ": "send --currency KZT",
    "send --type refu": "send --type refund.succeeded",
    "rejected list --reason currency_u": "rejected list --reason currency_unknown",
    "import-log ledger-2": "import-log ledger-2026-01-31.log",
}


class _Terminal:
    """A shell with its own terminal and its own home folder."""

    def __init__(self, shell: str, environment: Mapping[str, str], folder: Path) -> None:
        self.shown = ""
        self._process, self._end = pty.fork()
        if self._process == 0:
            os.chdir(folder)
            os.execvpe(shell, [shell, "-i"], dict(environment))  # noqa: S606
        self.until(PROMPT)

    def type(self, text: str) -> None:
        os.write(self._end, text.encode())

    def until(self, text: str, *, within_s: float = 30) -> None:
        """Read until the text is shown, and drop everything up to the end of the text."""
        deadline = time.monotonic() + within_s
        while text not in self.shown:
            left_s = deadline - time.monotonic()
            assert left_s > 0, f"expected {text!r} within {within_s} s, got {self.shown!r}"
            if select.select([self._end], [], [], left_s)[0]:
                self.shown += os.read(self._end, 65536).decode(errors="replace")
        self.shown = self.shown.partition(text)[2]

    def close(self) -> None:
        os.close(self._end)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a home folder with a script `bin/plexy-ledger`.

    For the installation and for completions, the script runs the program, and it counts the
    completions. For any other command, the script only records the arguments.
    """
    program = tmp_path / "bin" / "plexy-ledger"
    program.parent.mkdir()
    program.write_text(
        "#!/bin/sh\n"
        f'export PYTHONPATH="{ROOT}"\n'
        'case "$_PLEXY_LEDGER_COMPLETE$*" in\n'
        # The program expects that its parent process is the shell, so `exec` replaces this script.
        f'--install*) exec "{sys.executable}" -P -m cli "$@" ;;\n'
        f'complete*) "{sys.executable}" -P -m cli "$@"; code=$?\n'
        '  echo "$_TYPER_COMPLETE_FISH_ACTION $code" >> "$HOME/completed"; exit $code ;;\n'
        '*) echo "$*" >> "$HOME/ran" ;;\n'
        "esac\n"
    )
    program.chmod(0o755)
    (tmp_path / "ledger-2026-01-31.log").touch()
    return tmp_path


@contextlib.contextmanager
def _terminal(shell: str, home: Path) -> Iterator[_Terminal]:
    environment = {
        "HOME": str(home),
        "PATH": f"{home / 'bin'}:{os.environ['PATH']}",
        "TERM": "dumb",
        "LANG": "C.UTF-8",
    }
    terminal = _Terminal(shell, environment, home)
    try:
        yield terminal
    finally:
        terminal.close()


@pytest.mark.parametrize("shell", SHELLS)
def test_after_the_installation_tab_completes_commands_options_values_and_files(shell, home):
    name, text = _STARTS[shell]
    (home / name).parent.mkdir(parents=True, exist_ok=True)
    (home / name).write_text(text)
    with _terminal(shell, home) as terminal:
        terminal.type("plexy-ledger --install-completion\n")
        terminal.until(f"{shell} completion installed in")
    with _terminal(shell, home) as terminal:
        if shell == "zsh":
            # The first Tab in a shell loads the completion functions, but completes nothing.
            terminal.type("plexy-ledger \t\n")
            until(lambda: _ran(home), within_s=30, what="the first command")
        for typed in TYPED:
            ran, completed = _ran(home), _completed(home)
            terminal.type(f"plexy-ledger {typed}\t")
            # Text that is typed before the answer would become part of the word.
            until(lambda: _completed(home) > completed, within_s=30, what=f"an answer: {typed}")  # noqa: B023
            terminal.type("\n")
            until(lambda: len(_ran(home)) > len(ran), within_s=30, what=f"a command: {typed}")  # noqa: B023
    assert _ran(home)[-len(TYPED) :] == list(TYPED.values())


def _ran(home: Path) -> list[str]:
    file = home / "ran"
    return [line.rstrip() for line in file.read_text().splitlines()] if file.exists() else []


def _completed(home: Path) -> int:
    """Count the answers to Tab, although fish asks up to two questions for one Tab.

    The first question is whether completions exist; the second question asks for them. The first
    question is counted only if its answer is that no completions exist.
    """
    file = home / "completed"
    lines = file.read_text().splitlines() if file.exists() else []
    return len([line for line in lines if line != "is-args 0"])


def test_a_completion_imports_no_library_that_only_commands_need():
    code = (
        "import atexit, sys\n"
        "slow = {'faust', 'aiokafka', 'httpx', 'rich', 'asyncio', 'starlette'}\n"
        "atexit.register(lambda: print(slow & set(sys.modules)))\n"
        "from cli.main import main\n"
        "main()\n"
    )
    environment = {
        "COMP_WORDS": "plexy-ledger send --currency KZ",
        "COMP_CWORD": "3",
        "_PLEXY_LEDGER_COMPLETE": "complete_bash",
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.splitlines() == ["KZT", "set()"], done.stderr
