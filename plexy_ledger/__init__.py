"""Starts ``plexy-ledger``, unless another project's package hides one of this project's packages.

The other packages of this project have common names, such as ``cli``. A package of another project
may have the same name and come first on ``sys.path``; it then hides ours. So the entry point has a
package of its own, whose name is uncommon.
"""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

_PACKAGES = ("cli", "ingest", "ledger", "processors", "runtime")


def main() -> NoReturn:
    """Run the command that the arguments name, and end the process."""
    _require_our_packages()
    from cli.main import main as run  # noqa: PLC0415 - `cli` may be another project's

    run()


def _require_our_packages() -> None:
    ours = Path(__file__).resolve().parent.parent
    for name in _PACKAGES:
        spec = find_spec(name)
        found = Path(spec.origin) if spec and spec.origin else None
        if found and found.resolve() != ours / name / "__init__.py":
            place = found.parent if found.name == "__init__.py" else found
            sys.exit(
                f"plexy-ledger: {place} hides the package {name} in {ours}: start "
                "`plexy-ledger` from another folder and without PYTHONPATH, or install "
                "plexy-ledger into an environment of its own (docs/install.md)"
            )
