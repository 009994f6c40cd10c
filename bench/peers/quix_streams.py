"""Defines the peer Quix Streams, which runs ``quix_app`` in a separate environment.

The environment is under ``build/``, and its packages are locked in ``requirements/quix.txt``. The
project itself does not depend on these packages.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from bench.builds import BUILD, build_once
from bench.measured import PROJECT
from bench.program import OrderTotals, Peer, totals_by_currency

_VENV: Final = BUILD / "quix_streams"
_LOCK: Final = PROJECT / "requirements" / "quix.txt"


class QuixStreams(Peer):
    """The peer that runs as `python -m bench.peers.quix_app`."""

    name = peer = "quix_streams"
    title = "Quix Streams"
    # This peer folds at a third of our rate, so folding half of the input is enough.
    share = 0.5

    @classmethod
    def prepare(cls) -> None:
        """Create the peer's environment."""
        uv = str(Path(sys.executable).with_name("uv"))
        install = [uv, "pip", "install", "--require-hashes", "--compile-bytecode", "--python"]
        build_once(
            "the environment of Quix Streams",
            _VENV,
            [_LOCK],
            [uv, "venv", "--clear", "--python", sys.executable, str(_VENV)],
            [*install, str(_VENV / "bin" / "python"), "--requirement", str(_LOCK)],
        )

    def command(self) -> list[str]:
        """Return the command line of the worker."""
        return [str(_VENV / "bin" / "python"), "-m", "bench.peers.quix_app"]

    def environment(self) -> Mapping[str, str]:
        """Return variables with the worker's broker, topic prefix, group and data folder."""
        return {
            "BENCH_BOOTSTRAP": self.place.bootstrap,
            "BENCH_PREFIX": self.place.prefix,
            "BENCH_APP_ID": self.place.group_id,
            "BENCH_FOLDER": str(self.place.folder / "data"),
        }

    def answers_ready(self) -> bool:
        """Return ``True``: the peer has no readiness page, but its warm-up shows that it folds."""
        return True

    def order_totals(self, document: bytes) -> OrderTotals | None:
        """Read the peer's order document; ``null`` means a removed order, like our tombstone."""
        order = json.loads(document)
        return order and OrderTotals(order["status"], totals_by_currency(order["totals"]))
