"""A program's logs have their documented form; each test runs its own process."""

import json
import os
import subprocess
import sys

import pytest

PROGRAM = """
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


def run(log_format: str = "json", level: str = "info") -> subprocess.CompletedProcess[str]:
    code = PROGRAM.format(log_format=log_format, level=level)
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )


def lines(level: str = "info") -> list[dict]:
    return [json.loads(line) for line in run(level=level).stderr.splitlines()]


def events(level: str) -> list[str]:
    return [line["event"] for line in lines(level)]


def test_a_line_is_one_json_document_with_level_time_and_fields():
    [kept] = [line for line in lines() if line["event"] == "kept"]
    assert kept.pop("timestamp").endswith("Z")
    assert kept == {"event": "kept", "level": "info", "event_id": "evt_№", "partition": 3}


def test_standard_output_has_only_results():
    assert run().stdout == "a result\n"


def test_an_exception_is_part_of_the_line_that_reports_it():
    failed = lines()[-1]
    assert (failed["event"], failed["level"]) == ("failed", "error")
    assert failed["exception"].startswith("Traceback")
    assert failed["exception"].endswith("ValueError: in vain")


def test_libraries_log_in_the_same_form_with_their_names():
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
def test_at_each_level_the_libraries_log_no_more_than_the_program(level, ours, libraries):
    logged = events(level)
    assert [event for event in logged if " says " not in event] == ours
    shown = {event.split()[-1] for event in logged if event.startswith("faust.app ")}
    assert shown == libraries


@pytest.mark.parametrize("level", ["debug", "info"])
def test_aiokafka_logs_only_warnings_and_errors_and_the_timers_log_only_errors(level):
    logged = events(level)
    assert [e for e in logged if e.startswith("aiokafka")] == [
        "aiokafka.conn says warning",
        "aiokafka.conn says error",
    ]
    assert [e for e in logged if e.startswith("mode.timers")] == ["mode.timers says error"]


def test_the_format_auto_means_json_without_a_terminal():
    assert [json.loads(line) for line in run("auto").stderr.splitlines()]


def test_the_format_auto_means_pretty_on_a_terminal():
    pty = pytest.importorskip("pty", reason="this system has no pseudo-terminals")
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        code = PROGRAM.format(log_format="auto", level="info")
        subprocess.run(
            [sys.executable, "-c", code], stdout=theirs, stderr=theirs, timeout=60, check=True
        )
        os.close(theirs)
        shown = terminal.read(65_536).decode()
    assert "kept" in shown
    assert "{" not in shown.splitlines()[1]


def test_pretty_lines_are_not_json():
    shown = run("pretty").stderr
    assert "event_id" in shown
    with pytest.raises(json.JSONDecodeError):
        json.loads(shown.splitlines()[0])
