"""Waits for the end of each program that a fault keeps from running, and checks the logged reason.

Such a program must end by itself, and its output must name the reason.
"""

import time
from typing import Final

from faults.program import ProgramUnderFault, Refusal
from faults.stage import FaultStage

# This wait is longer than the limit in ``limits``, so that an end that exceeds the limit is still
# measured.
_WAITED_FOR_S: Final = 120.0


def await_end(stage: FaultStage, program: ProgramUnderFault, *words: str) -> None:
    """Wait until a program ends; one of its last lines must contain all of these words."""
    began_s = time.monotonic()
    if not program.wait_ended(_WAITED_FOR_S):
        stage.findings.append(
            f"{program.label} is still running during {stage.fault}: expected it to end and to "
            f"log {' and '.join(words)}"
        )
        program.kill()
        return
    took_s = time.monotonic() - began_s
    stage.refusals.append(Refusal(program.label, stage.fault, took_s))
    expect_logged(stage, program, *words)


def expect_logged(stage: FaultStage, program: ProgramUnderFault, *words: str) -> None:
    """Add a finding unless one of the program's last lines contains all of these words."""
    if not any(all(word in line for word in words) for line in program.last_lines):
        lines = "\n".join(program.last_lines[-10:])
        stage.findings.append(
            f"{program.label} {program.ended()}, and did not log {' and '.join(words)}:\n{lines}"
        )
