"""`simulate` returns an exit code, writes a report, shows its progress, and ends on Ctrl-C."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from rich.console import Console

from cli.errors import WrongOptionError
from cli.kafka.process import free_port
from cli.simulate import oracle
from cli.simulate.command import SimulateOptions, simulate
from cli.simulate.schedule import deliveries


class _Handler(BaseHTTPRequestHandler):
    """Accepts every delivery, but has no orders."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(200, b'{"received": true}')

    def do_GET(self):
        self._answer(404, b'{"code": "order_not_found"}')

    def _answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments):
        """Log nothing."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()
        thread.join()


def _options(url, **more) -> SimulateOptions:
    given = {
        "seed": 6,
        "events": 40,
        "rate_per_s": 0.0,
        "check": False,
        "check_within_s": 0.0,
        "url": url,
        "views_urls": (url,),
        "time_scale": 0.01,
        "concurrency": 4,
        "dialects": "sdk",
        "json_file": None,
        "rules": "seed",
    }
    return SimulateOptions(**(given | more))


def _run(options, *, terminal=False, width=200) -> tuple[int, str]:
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=terminal, width=width)
    return simulate(options, {}, console), shown.getvalue()


def test_a_run_without_a_check_succeeds_if_all_events_are_acknowledged(server, tmp_path):
    file = tmp_path / "report.json"
    code, shown = _run(_options(server, json_file=file))
    report = json.loads(file.read_bytes())
    assert code == 0
    assert (report["seed"], report["events"], report["acknowledged_events"]) == (6, 40, 40)
    assert report["sent"] == len(list(deliveries(6, 40)))
    assert report["checked"] is None
    assert "--seed 6 --events 40 --dialects sdk --rules seed" in shown


def test_a_missing_order_is_reported_and_the_exit_code_is_1(server, tmp_path):
    file = tmp_path / "report.json"
    code, shown = _run(_options(server, check=True, check_within_s=2, json_file=file))
    assert code == 1
    predicted = oracle.orders(each.body for each in deliveries(6, 40))
    checked = json.loads(file.read_bytes())["checked"]
    named = {each["order_id"] for each in checked["differing"]}
    assert named == {name for name, order in predicted.items() if order}
    assert checked["orders"] == len(predicted)
    assert f"of {len(predicted)} orders differ" in shown
    assert all(f"order {name}: " in shown for name in sorted(named)[:20])


def test_a_terminal_shows_a_progress_bar(server):
    _, shown = _run(_options(server, check=True), terminal=True)
    assert "40/40" in shown
    assert "acknowledged" in shown


def test_without_a_seed_each_run_chooses_a_new_seed(server):
    _, first = _run(_options(server, seed=None, events=1))
    _, second = _run(_options(server, seed=None, events=1))
    assert first.splitlines()[0] != second.splitlines()[0]


def test_a_report_that_cannot_be_written_is_an_error_before_the_first_delivery(tmp_path):
    with pytest.raises(FileNotFoundError, match="report"):
        _run(_options(f"http://127.0.0.1:{free_port()}", json_file=tmp_path / "no" / "report"))


def test_a_wrong_address_is_a_wrong_option():
    with pytest.raises(WrongOptionError, match="--url"):
        _run(_options("nowhere"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_command_with_130_and_reports_unacknowledged_events(number, tmp_path):
    file = tmp_path / "report.json"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        kept = {name: text for name, text in os.environ.items() if not name.startswith("LEDGER_")}
        with subprocess.Popen(
            [sys.executable, "-m", "cli", "simulate", "--url", url, "--check", "--json", str(file)],
            env=kept,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            silent.settimeout(60)
            connection, _ = silent.accept()
            with connection:
                process.send_signal(number)
                output, _ = process.communicate(timeout=30)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    report = json.loads(file.read_bytes())
    assert report["interrupted"]
    assert report["checked"] is None
    assert report["acknowledged_events"] == 0
    assert report["owed"]
    assert all(
        f"not acknowledged, but perhaps kept: {name}" in output for name in report["owed"][:20]
    )


def simulated(server, environment, **options):
    return simulate(_options(server, **options), environment, Console(file=io.StringIO()))


PAY = {"LEDGER_PAY_TOKENS": "token_of_the_tests_0123456789", "LEDGER_PAY_AMOUNTS": "major"}


@pytest.mark.parametrize("dialects", ["pay", "sdk,pay", " sdk , pay "])
def test_the_dialects_of_a_run_can_be_chosen(server, dialects):
    assert simulated(server, PAY, dialects=dialects) == 0


@pytest.mark.parametrize("dialects", ["", "xml", "sdk,xml"])
def test_an_unknown_dialect_is_refused(server, dialects):
    with pytest.raises(WrongOptionError, match="--dialects: expected sdk"):
        simulated(server, PAY, dialects=dialects)


@pytest.mark.parametrize("missing", sorted(PAY))
def test_the_pay_dialect_needs_a_token_and_the_unit_of_its_amounts(server, missing):
    given = {name: text for name, text in PAY.items() if name != missing}
    with pytest.raises(WrongOptionError, match=missing):
        simulated(server, given, dialects="pay")
