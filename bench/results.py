"""Writes ``build/bench.json``, which has each program's latest rate per second.

The file has one half for each of two benchmarks, ``fold`` and ``ingest``. Writing one half leaves
the other half unchanged.

    {"fold": {"ours": …}, "ingest": {"ours": …}, "details": {"fold": {…}, "ingest": {…}}}
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def keep(path: Path, half: str, rates: Mapping[str, float], **details: Any) -> None:
    """Replace one half of the file, and the details of that half; keep the other half."""
    before: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    halves = ("fold", "ingest", "details")
    document: dict[str, Any] = {name: before[name] for name in halves if name in before}
    document[half] = {name: round(rate, 1) for name, rate in rates.items()}
    document.setdefault("details", {})[half] = details
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n")
