"""The commands a person types; the embedded Kafka; the sample that the demo delivers.

The five packages of this project have common names. Where another program's package of such a name
comes first on ``sys.path``, no command runs, and the one line below says which package it is.
"""

import sys
from importlib.util import find_spec
from pathlib import Path


def _require_our_packages() -> None:
    ours = Path(__file__).resolve().parent.parent
    for name in ("ledger", "runtime", "ingest", "processors"):
        spec = find_spec(name)
        found = spec and spec.origin
        if found and Path(found).resolve().parent.parent != ours:
            sys.exit(
                f"plexy-ledger: {Path(found).parent} stands in the way of the package {name} in "
                f"{ours}: start `plexy-ledger` from another folder and without PYTHONPATH, or "
                "install plexy-ledger into an environment of its own (docs/install.md)"
            )


_require_our_packages()
