"""docs/accounting.md shows the real output of its commands."""

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from cli.run.local import running
from cli.run.programs import Command
from tests.kafka.harness import environment, free_port

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "accounting.md").read_text()

pytestmark = pytest.mark.timeout(240)


class Shown(NamedTuple):
    """A command of the page, with the output that the page shows below it."""

    command: str
    output: str


def shown() -> list[Shown]:
    found = []
    for block in re.findall(r"^```console\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            found.append(Shown(command, output))
    return found


def commands_in(folder: Path, ingest_url: str) -> None:
    """Write a `plexy-ledger` script into a folder; the script's `send` posts to ``ingest_url``."""
    script = folder / "plexy-ledger"
    script.write_text(
        "#!/bin/sh\n"
        f'[ "$1" != send ] || set -- "$@" --url "{ingest_url}"\n'
        f'PYTHONPATH="{ROOT}" exec "{sys.executable}" -m cli "$@"\n'
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)


def test_the_page_shows_the_real_output_of_its_commands(kafka, tmp_path):
    if shutil.which("hledger") is None:
        pytest.skip("hledger is not installed (Debian: apt-get install hledger)")
    env = environment(
        kafka.bootstrap,
        tmp_path / "ledger",
        ingest_port=free_port(),
        webhook_secrets="whsec_development",
    )
    ingest_url = f"http://127.0.0.1:{env['LEDGER_INGEST_PORT']}"
    programs, folder = tmp_path / "programs", tmp_path / "folder"
    programs.mkdir()
    folder.mkdir()
    commands_in(programs, f"{ingest_url}/webhooks/plexy")
    kept = {name: text for name, text in os.environ.items() if not name.startswith("LEDGER_")}
    path = os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]])
    settings = kept | env | {"PATH": path}
    probes = [
        (Command("ingest", settings), f"{ingest_url}/readyz"),
        (Command("worker", settings), f"http://127.0.0.1:{env['LEDGER_WEB_PORT']}/readyz"),
    ]
    with running(probes):
        for command, output in shown():
            if command.startswith("cat "):
                (folder / command.removeprefix("cat ")).write_text(output)
                continue
            done = subprocess.run(
                ["/bin/sh", "-c", command],
                cwd=folder,
                env=settings,
                capture_output=True,
                text=True,
                check=False,
                timeout=120,
            )
            assert done.returncode == 0, done.stdout + done.stderr
            printed = done.stdout.replace(env["LEDGER_TOPIC_PREFIX"], "")
            if not command.startswith("plexy-ledger send"):
                assert trimmed(printed) == trimmed(output), command
    (entry,) = re.findall(r"^```beancount\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert f"\n{entry}" in (folder / "plexy.beancount").read_text()


def trimmed(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().splitlines()]
