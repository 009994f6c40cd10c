"""The commands of docs/tutorial.md print the output that the page shows.

The test types each command of the page, except the commands that set up the checkout (`git clone`,
`make setup`). It uses free ports, and replaces `make run` with the command in the Makefile. On the
page, `…` stands for any text.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from cli.run.command import describe, plan
from tests.kafka.harness import free_port, until

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "tutorial.md").read_text()
(STARTED,) = re.findall(r"^```text\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
# These are the default ports of `make run`, under the names of their settings.
PORTS = {"INGEST": 8000, "INGEST_METRICS": 8100, "WEB": 6066, "KAFKA": 19092}
SETUP = ("git clone", "cd plexy-ledger", "make setup")
MISSING = [tool for tool in ("bash", "curl") if shutil.which(tool) is None]

pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.skipif(bool(MISSING), reason=f"the tutorial needs {', '.join(MISSING)}"),
]


class Step(NamedTuple):
    """A command of the page, and its output on the page."""

    command: str
    printed: str


def _steps() -> list[Step]:
    blocks = re.findall(r"^```console\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    typed = [text for block in blocks for text in re.split(r"^\$ ", block, flags=re.MULTILINE)]
    steps = [Step(*text.strip().partition("\n")[::2]) for text in typed if text]
    return [step for step in steps if not step.command.startswith(SETUP)]


class _Ledger:
    """The programs of `make run`, in a folder of their own, and a shell in that folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._ports = ports = {name: free_port() for name in PORTS}
        self._views = f"127.0.0.1:{ports['WEB']}"
        ours = ("LEDGER_", "PYTHONPATH")
        kept = {name: text for name, text in os.environ.items() if not name.startswith(ours)}
        if cache := os.environ.get("LEDGER_KAFKA_CACHE"):
            kept["LEDGER_KAFKA_CACHE"] = cache
        self._environment = kept | {f"LEDGER_{name}_PORT": str(p) for name, p in ports.items()}
        self._exports = f"export LEDGER_KAFKA_BOOTSTRAP=127.0.0.1:{ports['KAFKA']}\n"
        program = folder / ".venv" / "bin" / "plexy-ledger"
        program.parent.mkdir(parents=True)
        program.write_text(
            f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -P -m cli "$@"\n'
        )
        program.chmod(0o755)

    @property
    def output(self) -> str:
        """The output of `run`, in which each port is replaced by the default port."""
        text = (self._folder / "out").read_text()
        for name, port in self._ports.items():
            text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{PORTS[name]}")
        return text

    def start(self) -> None:
        with (self._folder / "out").open("wb") as out, (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [self._folder / ".venv" / "bin" / "plexy-ledger", "run"],
                cwd=self._folder,
                env=self._environment,
                stdout=out,
                stderr=log,
            )
        until(self._is_up, within_s=120, what="the ledger is running")

    def _is_up(self) -> bool:
        assert self._process
        assert self._process.poll() is None, (self._folder / "log").read_text()[-3000:]
        return "Look at its order" in self.output

    def stop(self) -> None:
        """Press Ctrl-C."""
        assert self._process
        self._process.send_signal(signal.SIGINT)
        self._process.wait(60)

    def close(self) -> None:
        if self._process and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def type(self, command: str) -> str:
        """Type a command into the second terminal; return its output."""
        if command.startswith("export "):
            self._exports += f"{command}\n"
        script = self._exports + command.replace("127.0.0.1:6066", self._views)
        done = subprocess.run(
            ["bash", "-c", script],  # noqa: S607
            cwd=self._folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=100,
            check=False,
        )
        return done.stdout


@pytest.fixture
def ledger(tmp_path: Path, kafka_cache: object) -> Iterator[_Ledger]:
    del kafka_cache  # The fixture has filled the cache.
    ledger = _Ledger(tmp_path)
    try:
        yield ledger
    finally:
        ledger.close()


def _matches(printed: str, output: str) -> bool:
    pattern = ".*".join(re.escape(part) for part in printed.split("…"))
    return re.fullmatch(pattern, output.strip(), re.DOTALL) is not None


def test_an_ellipsis_of_the_page_matches_any_text():
    assert _matches("a …\nc", "a b\nc\n")
    assert not _matches("a …\nc", "a b\nd")


def _follow(ledger: _Ledger, step: Step) -> None:
    """Type a command; repeat a `curl` until it prints the page's output."""
    deadline = time.monotonic() + (30 if step.command.startswith("curl ") else 0)
    while not _matches(step.printed, output := ledger.type(step.command)):
        assert time.monotonic() < deadline, f"$ {step.command}\n{output}\nis not\n{step.printed}"
        time.sleep(0.2)


def test_each_command_prints_the_pages_output_and_the_last_curl_prints_it_even_after_a_restart(
    ledger,
):
    steps = _steps()
    assert [step.command for step in steps[:2]] == [
        "make run",
        'export PATH="$PWD/.venv/bin:$PATH"',
    ]
    ledger.start()
    addresses, shell_lines, _ = ledger.output.partition("Send a signed event")
    assert shell_lines
    assert _matches(STARTED.strip(), addresses)
    for step in steps[1:]:
        _follow(ledger, step)
    ledger.stop()
    ledger.start()
    _follow(ledger, [step for step in steps if step.command.startswith("curl ")][-1])


def test_make_run_is_the_command_that_is_tested():
    recipe = re.search(r"^run:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe
    assert "plexy-ledger run" in recipe[1]


def test_the_page_names_exactly_the_addresses_of_run():
    printed = describe(plan({}), now_s=0, on_terminal=False)
    own = {str(port) for port in PORTS.values()}
    for text in (PAGE, printed):
        assert set(re.findall(r"127\.0\.0\.1:(\d+)", text)) == own
