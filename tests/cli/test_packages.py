"""A package of somebody else's under one of our names is named, and what to do about it."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("name", ["ledger", "runtime", "ingest", "processors"])
def test_a_package_that_stands_in_the_way_of_ours_is_one_line_with_its_place(tmp_path, name):
    other = tmp_path / name
    other.mkdir()
    (other / "__init__.py").write_text("")
    path = f"import sys; sys.path[:0] = [{str(tmp_path)!r}]; sys.path.append({str(ROOT)!r})"
    done = subprocess.run(
        [sys.executable, "-c", f"{path}; from cli.main import main; main()", "version"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"plexy-ledger: {other} stands in the way of the package {name} in ")
    assert line.endswith("install plexy-ledger into an environment of its own (docs/install.md)")
