"""A frequent line is the line that structlog would have written, and no line is lost."""

import json
import subprocess
import sys

import pytest

TELL = """
import asyncio, structlog
from runtime.lines import FrequentLog
from runtime.logs import configure
configure({log_format!r}, {level!r})
log = FrequentLog()
def tell(log, number):
    log.info("delivery", event_id="evt_№", type=None, outcome="accepted", ms=number)
async def main():
    for number in range(3):
        tell(log, number)
        await asyncio.sleep(0)
    tell(log, 3)
    {end}
tell(structlog.get_logger(), -1)
# Unlike `asyncio.run`, this gives the loop no turn after an error.
asyncio.new_event_loop().run_until_complete(main())
"""


def said(log_format: str = "json", level: str = "info", end: str = "") -> str:
    code = TELL.format(log_format=log_format, level=level, end=end)
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    ).stderr


def test_it_is_the_line_that_structlog_writes():
    theirs, *ours = [json.loads(line) for line in said().splitlines()]
    assert [line["ms"] for line in ours] == [0, 1, 2, 3]
    for line in ours:
        assert list(line) == list(theirs)
        assert len(line["timestamp"]) == len(theirs["timestamp"])
        assert {**line, "timestamp": "", "ms": -1} == {**theirs, "timestamp": ""}


def test_it_has_the_spaces_that_structlog_writes():
    assert said().count('"outcome": "accepted", "ms": ') == 5


@pytest.mark.parametrize("end", ["raise SystemExit(1)", "1 / 0"])
def test_no_line_is_left_behind_when_the_program_ends(end):
    told = said(end=end).splitlines()
    assert [line for line in told if '"ms": 3' in line]


def test_without_a_loop_it_is_written_at_once():
    code = TELL.partition("async def")[0].format(log_format="json", level="info")
    code += "tell(log, 1)\nimport os; os._exit(0)"
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert json.loads(ended.stderr)["ms"] == 1


def test_it_is_pretty_where_lines_are_for_people():
    told = said("pretty").splitlines()
    assert len(told) == 5
    assert not any(line.startswith("{") for line in told)


def test_above_its_level_nothing_is_told():
    assert said(level="warning") == ""
