"""``build/bench.json``: what the benchmarks measured, each its half, for programs.

In: a half's name, its rates per second, and what else it has to say. Out: the file, in which the
other half stands as it was: each is measured by a command of its own.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def keep(path: Path, half: str, rates: Mapping[str, float], **details: Any) -> None:
    """Write one half (``fold``, ``ingest``); the rates are medians per second."""
    document = json.loads(path.read_text()) if path.exists() else {}
    document[half] = {name: round(rate, 1) for name, rate in rates.items()}
    document.setdefault("details", {})[half] = details
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n")
