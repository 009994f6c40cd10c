"""The Dockerfile's commands run without Docker, in a folder that stands for the image's root.

These tests cover neither the base images nor the user that the last stage creates.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text()

pytestmark = pytest.mark.timeout(300)


def instructions(stage: str) -> Iterator[tuple[str, str]]:
    """Yield each instruction of a stage with its arguments; continued lines are joined."""
    text = re.sub(r"(?m)^#.*\n", "", stage).replace("\\\n", " ")
    for line in text.splitlines():
        if line.strip():
            name, _, rest = line.partition(" ")
            yield name, rest.strip()


BUILD, LAST = (
    list(instructions("FROM" + stage)) for stage in re.split(r"(?m)^FROM", DOCKERFILE)[1:]
)


class Replay:
    """A folder that stands for the root of an image's file system."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.workdir = root
        ours = ("LEDGER_", "PYTHON", "VIRTUAL_ENV", "UV_")
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
        # This folder stands for /usr/local/bin: Python, pip and installed programs.
        subprocess.run([sys.executable, "-m", "venv", root / "python"], check=True)
        self.environment["PATH"] = f"{root / 'python' / 'bin'}{os.pathsep}{os.environ['PATH']}"

    def here(self, text: str) -> str:
        """Return the text with the image's absolute paths replaced by paths below ``root``."""
        return re.sub(r"(?<![\w.])/(?=opt/|src\b|var/)", f"{self.root}/", text)

    def do(self, name: str, rest: str) -> None:
        """Execute one instruction."""
        if name == "WORKDIR":
            self.workdir = Path(self.here(rest))
            self.workdir.mkdir(parents=True, exist_ok=True)
        elif name == "COPY":
            *sources, target = rest.split()
            for source in sources:
                self._copy(ROOT / source, self.workdir / target)
        elif name == "ENV":
            for pair in shlex.split(self.here(rest)):
                variable, _, value = pair.partition("=")
                self.environment[variable] = value.replace("$PATH", self.environment["PATH"])
        elif name == "RUN":
            done = self.run(["sh", "-ec", self.here(rest)])
            assert done.returncode == 0, f"RUN {rest}\n{done.stdout}{done.stderr}"
        else:
            assert name in {"FROM", "USER", "ENTRYPOINT", "CMD"}, f"{name} is not replayed"

    def run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.workdir,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=250,
            check=False,
        )

    def _copy(self, source: Path, target: Path) -> None:
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)


def test_the_commands_create_an_environment_in_which_the_program_runs(tmp_path):
    replay = Replay(tmp_path)
    for instruction in BUILD:
        replay.do(*instruction)
    made = tmp_path / "opt" / "plexy-ledger"
    # The modules are compiled in advance, because the programs' user can't write to this folder.
    assert list(made.rglob("processors/__pycache__/worker.*.pyc"))
    for name, rest in LAST:
        if name == "ENV":
            replay.do(name, rest)
    (entry,) = (rest for name, rest in LAST if name == "ENTRYPOINT")
    program, *_ = re.findall(r'"([^"]+)"', entry)
    assert shutil.which(program, path=replay.environment["PATH"]) == str(made / "bin" / program)
    (tmp_path / "elsewhere").mkdir()
    replay.workdir = tmp_path / "elsewhere"
    version = replay.run([program, "version"])
    assert version.stdout.split()[:1] == [program], version.stderr
    doctor = replay.run([program, "doctor", "worker", "--json"])
    found = json.loads(doctor.stdout)["findings"]
    levels = {each["level"] for each in found if each["check"] == "versions"}
    assert levels == {"ok"}, doctor.stdout
