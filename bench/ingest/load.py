"""The load: `wrk`, with so many connections, each of which sends its next delivery once answered.

In: a port, how long. Out: a ``Load``. Never: a delivery that is sent twice on one log, or an answer
that is taken for a good one because nobody looked.
"""

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from bench.recording import RecordedDelivery
from bench.stage import BenchError

SECRET: Final = "whsec_bench"  # noqa: S105 - of the bench alone
_SCRIPT: Final = Path(__file__).parent / "deliveries.lua"
# Longer than any server may take for an answer: what comes is counted, however late.
_ANSWER_WITHIN_S: Final = 15
_ENDS_WITHIN_S: Final = 30


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the deliveries of one run of `wrk`; times in microseconds.

    ``answered`` counts all answers, ``refused`` those above 399, ``lost`` what got no answer.
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
    """Return where `wrk` is; ``BenchError`` if it is not."""
    wrk = shutil.which("wrk")
    if wrk is None:
        raise BenchError(
            "ingress is measured with wrk, which is not installed: `apt install wrk` on Debian and "
            "Ubuntu, `brew install wrk` on macOS"
        )
    return wrk


def write_bodies(path: Path, deliveries: Iterable[RecordedDelivery]) -> None:
    """Write the recorded bodies for `wrk`, a line each."""
    path.write_bytes(b"".join(delivery.body + b"\n" for delivery in deliveries))


def deliver(port: int, bodies: Path, *, seconds: int, connections: int, run: int) -> Load:
    """Deliver for so many seconds; ``run`` is a number that no other load on this log has."""
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
