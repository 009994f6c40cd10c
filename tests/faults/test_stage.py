"""The stage of a run starts, observes and ends the run's programs.

The judge checks the run's results at the end. It gets the environment of the stage, which has no
ledger settings of the shell.
"""

import random
import resource
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from cli.child import start_child
from cli.run.programs import Command
from faults import refusals
from faults.clock import LIBRARY
from faults.injections import KINDS
from faults.program import ProgramUnderFault, Stop
from faults.refusals import await_end
from faults.stage import StageError
from processors.settings import WorkerSettings
from runtime.fold_rules import difference, protocols


class Ended:
    """A program's command whose process ends as soon as it starts; each process has a new pid."""

    def __init__(self, *last_lines: str) -> None:
        self.pid = 1
        self.last_lines = last_lines

    def exit_code(self) -> int:
        return 1

    def start(self) -> None:
        self.pid += 1

    def join(self, timeout_s: float) -> None:
        """Return at once, because all output has been read."""


class Sleeper(Command):
    """A program's command whose process runs until it is killed."""

    def __init__(self) -> None:
        super().__init__("sleep", {})

    def start(self) -> None:
        self._process = start_child(["sleep", "1000"])


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


def test_a_missing_kafka_excuses_the_end_of_a_program_only_before_the_program_is_ready(
    tmp_path, probe
):
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


def test_a_stage_that_does_not_become_ready_reports_the_answer_of_the_probe(stage, probe):
    answers, url = probe
    answers.answer = (503, b"2 partitions are being recovered")
    stage.ingest.url = url
    with pytest.raises(StageError, match=r"ingest .* 503 2 partitions are being recovered"):
        stage.settle(0)
    answers.answer = (200, b"")
    with pytest.raises(StageError, match=r"worker 1 .* no answer: ConnectError"):
        stage.settle(0)


def test_the_judge_gets_the_settings_of_the_stage_and_no_ledger_settings_of_the_shell(stage):
    assert "LEDGER_ALLOW_UNSIGNED" not in stage.environment
    assert stage.environment["LEDGER_KAFKA_BOOTSTRAP"] == stage.brokers[0].bootstrap
    assert stage.environment["PATH"]


def test_a_fault_counts_only_the_stops_of_the_programs_that_it_targets(stage):
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


def test_the_stranger_worker_differs_in_one_fold_setting_and_its_refusal_names_this_setting(
    stage,
):
    names = []
    for program in (stage.workers[0], stage.stranger):
        settings = WorkerSettings.from_environment(program._command._environment)
        names.append(protocols(settings)[0])
    assert names[0] != names[1]
    assert difference(settings, names[0]).what.endswith(
        "LEDGER_FORGET_AFTER_DAYS is 90 in the group and 91 in this program"
    )


@pytest.mark.skipif(LIBRARY is None, reason="libfaketime is not installed")
def test_only_ingress_and_the_extra_workers_have_clocks_that_can_be_set(stage):
    assert all(program.clock for program in (stage.ingest, *stage.extras))
    assert not any(worker.clock for worker in stage.workers)


@pytest.mark.parametrize(
    ("last_line", "found"),
    [
        ("OtherRulesError: LEDGER_FORGET_AFTER_DAYS is 90 there", []),
        ("OtherRulesError: something else", ["did not log OtherRulesError and LEDGER_FORGET"]),
    ],
)
def test_a_program_that_cannot_run_must_log_the_reason(stage, last_line, found):
    stage.fault = "worker of other rules"
    command = Ended(last_line)
    program = ProgramUnderFault(command, stage.folder, label="stranger", url="")
    await_end(stage, program, "OtherRulesError", "LEDGER_FORGET_AFTER_DAYS")
    assert [each.during for each in stage.refusals] == ["worker of other rules"]
    assert len(stage.findings) == len(found)
    assert all(words in finding for words, finding in zip(found, stage.findings, strict=True))


def test_a_program_that_runs_although_it_should_not_run_is_reported_and_killed(stage, monkeypatch):
    monkeypatch.setattr(refusals, "_WAITED_FOR_S", 0.1)
    sleeper = Sleeper()
    program = ProgramUnderFault(sleeper, stage.folder, label="stranger", url="")
    program.start_in_vain()
    await_end(stage, program, "OtherRulesError")
    assert stage.findings == [
        "stranger is still running during the start: expected it to end and to log OtherRulesError"
    ]
    assert stage.refusals == []
    assert program.ended() == "was ended by SIGKILL"


def test_the_limit_on_the_open_files_of_a_running_program_can_be_lowered(stage):
    sleeper = Sleeper()
    program = ProgramUnderFault(sleeper, stage.folder, label="worker 1", url="")
    program.start()
    assert program.open_files() >= 3
    program.limit_files(7)
    assert resource.prlimit(sleeper.pid, resource.RLIMIT_NOFILE) == (7, 7)
    program.kill()


def test_a_program_that_still_runs_although_it_should_have_ended_is_not_started_again(stage):
    sleeper = Sleeper()
    program = ProgramUnderFault(sleeper, stage.folder, label="worker 1", url="")
    program.start()
    program.expect_end()
    first = sleeper.pid
    program.start_if_ended()
    assert (sleeper.pid, program.may_end) == (first, False)
    program.kill()
    program.start_if_ended()
    assert sleeper.pid != first
    assert (program.ended(), program.may_end) == (None, False)
    program.kill()


def test_a_frozen_worker_is_not_expected_to_end(stage):
    (freeze,) = [kind for kind in KINDS if kind.name == "worker frozen"]
    for worker in stage.workers:
        worker.may_end = False
    chance = random.Random(1)  # noqa: S311 - not for cryptography
    with freeze.inject(stage, chance):
        assert not any(worker.may_end for worker in stage.workers)
