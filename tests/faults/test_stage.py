"""The stage of a run reports on its programs, and the judge sees only the stage's environment."""

import random
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from faults.injections import KINDS
from faults.program import ProgramUnderFault, Stop
from faults.stage import StageError


class Ended:
    """A program's command that ends as soon as it is started; each start has a new pid."""

    def __init__(self, *last_lines: str) -> None:
        self.pid = 1
        self.last_lines = last_lines

    def exit_code(self) -> int:
        return 1

    def start(self) -> None:
        self.pid += 1

    def join(self, timeout_s: float) -> None:
        """Return at once, because all output has been read."""


@pytest.fixture
def probe():
    """Serve a readiness probe whose answer can be changed."""

    class Probe(BaseHTTPRequestHandler):
        answer: ClassVar = (200, b"")

        def do_GET(self) -> None:
            status, body = self.answer
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Probe) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Probe, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_missing_kafka_excuses_an_end_only_before_the_program_is_ready(tmp_path, probe):
    _, url = probe
    command = Ended("Kafka does not answer at 127.0.0.1:1", "some later line")
    program = ProgramUnderFault(command, tmp_path, label="worker 1", url=url)
    program.start()
    assert program.start_again("broker killed").is_excused
    assert program.not_ready() is None
    assert not program.start_again("broker killed").is_excused
    # The restarted process has not been ready yet.
    assert program.start_again("broker killed").is_excused
    command.last_lines = ("another reason",)
    assert not program.start_again("broker killed").is_excused


@pytest.fixture
def stage(describe, monkeypatch):
    """Return a stage with ten workers."""
    monkeypatch.setenv("LEDGER_ALLOW_UNSIGNED", "true")
    return describe(10)


def test_a_stage_that_does_not_become_ready_reports_the_probes_answer(stage, probe):
    answers, url = probe
    answers.answer = (503, b"2 partitions are being recovered")
    stage.ingest.url = url
    with pytest.raises(StageError, match=r"ingest .* 503 2 partitions are being recovered"):
        stage.settle(0)
    answers.answer = (200, b"")
    with pytest.raises(StageError, match=r"worker 1 .* no answer: ConnectError"):
        stage.settle(0)


def test_the_judge_sees_the_stages_settings_and_none_of_the_shells(stage):
    assert "LEDGER_ALLOW_UNSIGNED" not in stage.environment
    assert stage.environment["LEDGER_KAFKA_BOOTSTRAP"] == stage.brokers[0].bootstrap
    assert stage.environment["PATH"]


def test_a_fault_is_charged_only_with_the_stops_of_its_own_targets(stage):
    stops = {}
    for program in stage.workers:
        stops[program.label] = Stop(program.label, 5.0, 1.0, "ended", is_clean=True)
        program.stops.append(stops[program.label])
    assert list(stage.stops_since(0.0, ("worker 10",))) == [stops["worker 10"]]
    assert list(stage.stops_since(0.0, ("worker 1", "worker 2"))) == [
        stops["worker 1"],
        stops["worker 2"],
    ]
    assert list(stage.stops_since(6.0, ("worker 1",))) == []


def test_a_frozen_worker_is_not_expected_to_end(stage):
    (freeze,) = [kind for kind in KINDS if kind.name == "worker frozen"]
    for worker in stage.workers:
        worker.may_end = False
    chance = random.Random(1)  # noqa: S311 - not for cryptography
    with freeze.inject(stage, chance):
        assert not any(worker.may_end for worker in stage.workers)
