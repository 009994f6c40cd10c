"""If a foreign package hides our package, the error names the foreign path and a remedy."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
# SCRIPT starts the program as the installed script does; MODULE starts it as `run` and `demo` do.
SCRIPT = ["-c", "from plexy_ledger import main; main()"]
MODULE = ["-m", "cli"]


@pytest.mark.parametrize(
    ("started_by", "name", "file"),
    [
        (SCRIPT, "cli", "cli/__init__.py"),
        (SCRIPT, "cli", "cli.py"),
        *(
            (by, name, f"{name}/__init__.py")
            for by in (SCRIPT, MODULE)
            for name in ("ledger", "runtime", "ingest", "processors")
        ),
    ],
)
def test_a_foreign_package_that_hides_ours_causes_a_one_line_error_with_the_foreign_path(
    tmp_path, started_by, name, file
):
    other = tmp_path / file
    other.parent.mkdir(exist_ok=True)
    other.write_text("")
    # Without `-P`, Python searches the current folder, or the script's folder, before PYTHONPATH.
    python = [sys.executable, "-P"]
    done = subprocess.run(
        [*python, *started_by, "version"],
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    place = other.parent if other.name == "__init__.py" else other
    assert line.startswith(f"plexy-ledger: {place} hides the package {name} in ")
    assert line.endswith("install plexy-ledger into an environment of its own (docs/install.md)")
