"""Runs the load generator `wrk`: each connection sends a delivery, then waits for its answer.

No delivery is sent to the same log twice. The result counts the answers that have an error status.
"""

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from bench.recording import RecordedDelivery
from bench.stage import BenchError

SECRET: Final = "whsec_of_the_bench"  # noqa: S105 - only the benchmark uses it
_SCRIPT: Final = Path(__file__).parent / "deliveries.lua"
# The limit exceeds the time that any server may take, so that slow answers also count as answers.
_ANSWER_WITHIN_S: Final = 15
_ENDS_WITHIN_S: Final = 30


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of one run of `wrk`; times are in microseconds.

    ``answered`` is the number of all answers. ``refused`` is the number of answers whose status is
    above 399. ``lost`` is the number of deliveries that got no answer.
    """

    answered: int
    refused: int
    lost: int
    took_us: int
    p50_us: int
    p99_us: int

    @property
    def rate(self) -> float:
        """Answers per second."""
        return self.answered / self.took_us * 1e6


def require_wrk() -> str:
    """Return the path of `wrk`; raise ``BenchError`` if `wrk` is not installed."""
    wrk = shutil.which("wrk")
    if wrk is None:
        raise BenchError(
            "wrk, which measures ingress, is not installed: run `apt install wrk` on Debian and "
            "Ubuntu, or `brew install wrk` on macOS"
        )
    return wrk


def write_bodies(path: Path, deliveries: Iterable[RecordedDelivery]) -> None:
    """Write the recorded bodies for `wrk`, one per line."""
    path.write_bytes(b"".join(delivery.body + b"\n" for delivery in deliveries))


def deliver(port: int, bodies: Path, *, seconds: int, connections: int, run: int) -> Load:
    """Deliver for ``seconds``; each load on the same log must have a different ``run``."""
    command = [
        *(require_wrk(), "--threads", "1", "--connections", str(connections)),
        *("--duration", f"{seconds}s", "--timeout", f"{_ANSWER_WITHIN_S}s"),
        *("--script", str(_SCRIPT), f"http://127.0.0.1:{port}"),
    ]
    environment = {"BENCH_BODIES": str(bodies), "BENCH_SECRET": SECRET, "BENCH_RUN": str(run)}
    ended = subprocess.run(  # noqa: S603 - the command is ours
        command,
        env=environment,
        capture_output=True,
        text=True,
        timeout=seconds + _ANSWER_WITHIN_S + _ENDS_WITHIN_S,
        check=False,
    )
    if ended.returncode:
        raise BenchError(f"wrk ended with {ended.returncode}: {ended.stderr or ended.stdout}")
    return msgspec.json.decode(ended.stdout.splitlines()[-1], type=Load)
