"""`plexy-ledger run` prints working commands, restarts programs, and leaves no process behind."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kafka.harness import until
from tests.kafka.programs import Run, is_ready

pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.usefixtures("kafka_cache"),
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]

# The printed lines need these tools, which a bare container may lack.
MISSING = [tool for tool in ("curl", "openssl", "sed") if shutil.which(tool) is None]


def _paste(line: str) -> str:
    """Run a line as if a person had pasted it into a shell; return its output."""
    done = subprocess.run(
        ["/bin/sh", "-c", line], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


def _is_gone(pid: int) -> bool:
    try:
        # A zombie counts as gone, because its program has ended.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def _all_gone(pids: list[int]) -> bool:
    return all(_is_gone(pid) for pid in pids)


@pytest.fixture(scope="module")
def started(tmp_path_factory) -> Iterator[Run]:
    run = Run(tmp_path_factory.mktemp("run"))
    try:
        run.wait_started()
        yield run
    finally:
        run.end()


@pytest.mark.skipif(
    bool(MISSING), reason=f"the printed lines need {', '.join(MISSING)}: not installed here"
)
def test_the_printed_lines_send_an_event_and_show_its_order(started):
    assert json.loads(_paste(started.line("BODY="))) == {"received": True}
    look = started.line("curl ")
    order = until(
        lambda: json.loads(_paste(look)).get("status") == "paid" and json.loads(_paste(look)),
        within_s=60,
        what="the order is paid",
    )
    assert order["totals"] == {"KZT": {"paid": 500000, "refunded": 0, "net": 500000}}


def test_a_second_run_names_the_port_that_is_taken(started, tmp_path):
    port = started.line("  Kafka").rpartition(":")[2]
    second = Run(tmp_path / "second", LEDGER_KAFKA_PORT=port)
    assert second.process.wait(60) == 1
    (line,) = second.err.splitlines()
    assert f"127.0.0.1:{port}" in line
    assert "LEDGER_KAFKA_PORT" in line


def test_a_worker_that_dies_is_restarted_and_the_restart_is_logged(started):
    worker = started.child("worker")
    os.kill(worker, signal.SIGKILL)
    until(lambda: started.child("worker") not in {None, worker}, within_s=60, what="a new worker")
    assert "worker was ended by SIGKILL; starting it again in 1 s" in started.err
    until(lambda: "worker was started again" in started.err, within_s=10, what="a line about it")
    views = started.line("  orders").split()[1].removesuffix("/orders/<order")
    started.until(lambda: is_ready(views), within_s=90, what="ready again")


def test_each_line_of_output_begins_with_the_name_of_its_program(started):
    names = {line.partition("│")[0].strip() for line in started.err.splitlines()}
    assert {"run", "ingest", "worker"} <= names


def test_sigterm_stops_all_programs_and_kafka(tmp_path):
    run = Run(tmp_path)
    try:
        run.wait_started()
        children = list(run.children())
        run.process.send_signal(signal.SIGTERM)
        assert run.process.wait(60) == 0, run.err
        assert len(children) == 3
        assert _all_gone(children)
        assert "Traceback" not in run.err
        assert run.err.splitlines()[-1].endswith("everything is stopped")
    finally:
        run.end()


def test_no_process_outlives_a_run_that_is_killed(tmp_path):
    run = Run(tmp_path)
    try:
        until(lambda: run.child("worker"), within_s=120, what="a worker")
        children = list(run.children())
    finally:
        run.end()
    until(lambda: _all_gone(children), within_s=30, what="the children are gone")


def test_the_run_ends_and_gives_the_reason_if_a_program_cannot_start(tmp_path):
    run = Run(tmp_path)
    try:
        # `run` checks that ingress's port is free, and then starts Kafka. Now the test takes the
        # port.
        until(lambda: "starting Kafka" in run.err, within_s=60, what="Kafka starts")
        port = run.setting("LEDGER_INGEST_PORT")
        with socket.create_server(("127.0.0.1", int(port))):
            assert run.process.wait(120) == 1, run.err
        assert "ingest ended with exit code" in run.err
        assert f"LEDGER_INGEST_PORT={port}" in run.err
    finally:
        run.end()


def test_the_command_kafka_runs_a_broker_until_an_interrupt(tmp_path):
    broker = Run(tmp_path, command="kafka")
    try:
        broker.until(lambda: "Ctrl-C stops it" in broker.out, within_s=60, what="Kafka serves")
        children = list(broker.children())
        broker.process.send_signal(signal.SIGINT)
        assert broker.process.wait(60) == 0
        assert broker.out.startswith("Kafka serves 127.0.0.1:")
        assert broker.err == ""
        assert _all_gone(children)
    finally:
        broker.end()
