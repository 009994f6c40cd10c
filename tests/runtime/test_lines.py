"""``FrequentLog`` writes the same lines as structlog, and loses no line."""

import json
import subprocess
import sys

import pytest

PROGRAM = """
import asyncio, structlog
from runtime.lines import FrequentLog
from runtime.logs import configure
configure({log_format!r}, {level!r})
log = FrequentLog()
def write(log, number):
    log.info("delivery", event_id="evt_№", type=None, outcome="accepted", ms=number)
async def main():
    for number in range(3):
        write(log, number)
        await asyncio.sleep(0)
    write(log, 3)
    {end}
write(structlog.get_logger(), -1)
# Unlike `asyncio.run`, this call gives the loop no turn after an error.
asyncio.new_event_loop().run_until_complete(main())
"""


def logged(log_format: str = "json", level: str = "info", end: str = "") -> str:
    code = PROGRAM.format(log_format=log_format, level=level, end=end)
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    ).stderr


def test_a_line_equals_the_line_that_structlog_writes():
    theirs, *ours = [json.loads(line) for line in logged().splitlines()]
    assert [line["ms"] for line in ours] == [0, 1, 2, 3]
    for line in ours:
        assert list(line) == list(theirs)
        assert len(line["timestamp"]) == len(theirs["timestamp"])
        assert {**line, "timestamp": "", "ms": -1} == {**theirs, "timestamp": ""}


def test_a_line_has_the_spaces_that_structlog_writes():
    assert logged().count('"outcome": "accepted", "ms": ') == 5


@pytest.mark.parametrize("end", ["raise SystemExit(1)", "1 / 0"])
def test_no_line_is_lost_when_the_program_ends(end):
    lines = logged(end=end).splitlines()
    assert [line for line in lines if '"ms": 3' in line]


def test_a_line_is_written_at_once_if_no_event_loop_runs():
    code = PROGRAM.partition("async def")[0].format(log_format="json", level="info")
    code += "write(log, 1)\nimport os; os._exit(0)"
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert json.loads(ended.stderr)["ms"] == 1


def test_in_the_pretty_format_no_line_is_json():
    lines = logged("pretty").splitlines()
    assert len(lines) == 5
    assert not any(line.startswith("{") for line in lines)


def test_a_line_below_the_log_level_is_not_written():
    assert logged(level="warning") == ""
