"""A program's logs have their documented form; processes run, since the set-up is for life."""

import json
import os
import subprocess
import sys

import pytest

SAY = """
import logging, sys, structlog
from runtime.logs import configure
configure({log_format!r}, {level!r})
log = structlog.get_logger("ours")
print("a result")
log.debug("a detail")
log.info("kept", event_id="evt_№", partition=3)
for name in ("faust.app", "aiokafka.conn", "mode.timers"):
    for level in ("debug", "info", "warning", "error"):
        getattr(logging.getLogger(name), level)("%s says %s", name, level)
try:
    raise ValueError("in vain")
except ValueError:
    log.exception("failed")
"""


def said(log_format: str = "json", level: str = "info") -> subprocess.CompletedProcess[str]:
    code = SAY.format(log_format=log_format, level=level)
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )


def lines(level: str = "info") -> list[dict]:
    return [json.loads(line) for line in said(level=level).stderr.splitlines()]


def events(level: str) -> list[str]:
    return [line["event"] for line in lines(level)]


def test_a_line_is_one_json_document_with_level_time_and_what_was_told():
    [kept] = [line for line in lines() if line["event"] == "kept"]
    assert kept.pop("timestamp").endswith("Z")
    assert kept == {"event": "kept", "level": "info", "event_id": "evt_№", "partition": 3}


def test_results_stay_alone_on_standard_output():
    assert said().stdout == "a result\n"


def test_an_exception_is_part_of_its_line():
    failed = lines()[-1]
    assert (failed["event"], failed["level"]) == ("failed", "error")
    assert failed["exception"].startswith("Traceback")
    assert failed["exception"].endswith("ValueError: in vain")


def test_libraries_speak_in_the_same_lines_and_under_their_names():
    [line] = [line for line in lines() if line["event"] == "faust.app says warning"]
    assert (line["logger"], line["level"]) == ("faust.app", "warning")
    assert line["timestamp"]


@pytest.mark.parametrize(
    ("level", "ours", "libraries"),
    [
        ("debug", ["a detail", "kept", "failed"], {"info", "warning", "error"}),
        ("info", ["kept", "failed"], {"warning", "error"}),
        ("warning", ["failed"], {"warning", "error"}),
        ("error", ["failed"], {"error"}),
    ],
)
def test_a_level_is_ours_and_the_libraries_are_quieter(level, ours, libraries):
    told = events(level)
    assert [event for event in told if " says " not in event] == ours
    heard = {event.split()[-1] for event in told if event.startswith("faust.app ")}
    assert heard == libraries


@pytest.mark.parametrize("level", ["debug", "info"])
def test_aiokafka_never_tells_of_every_fetch_and_late_timers_are_no_news(level):
    told = events(level)
    assert [e for e in told if e.startswith("aiokafka")] == [
        "aiokafka.conn says warning",
        "aiokafka.conn says error",
    ]
    assert [e for e in told if e.startswith("mode.timers")] == ["mode.timers says error"]


def test_auto_is_json_where_nobody_looks():
    assert [json.loads(line) for line in said("auto").stderr.splitlines()]


def test_auto_is_pretty_on_a_terminal():
    pty = pytest.importorskip("pty", reason="no terminals of this kind here")
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        code = SAY.format(log_format="auto", level="info")
        subprocess.run(
            [sys.executable, "-c", code], stdout=theirs, stderr=theirs, timeout=60, check=True
        )
        os.close(theirs)
        shown = terminal.read(65_536).decode()
    assert "kept" in shown
    assert "{" not in shown.splitlines()[1]


def test_pretty_is_for_people():
    shown = said("pretty").stderr
    assert "event_id" in shown
    with pytest.raises(json.JSONDecodeError):
        json.loads(shown.splitlines()[0])
