"""The server process opens its port or reports why it can't, and ends after a signal."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from cli.kafka.process import free_port
from ingest.server import serve
from runtime.settings import SettingsError
from tests.ingest.conftest import PATH, SECRET, event, settings, signed
from tests.scraped import Scraped

PROJECT = Path(__file__).parents[2]
SERVE = (
    "import os; from ingest.server import serve; from ingest.settings import IngestSettings; "
    "serve(IngestSettings.from_environment(os.environ))"
)
UVICORN = ["-m", "uvicorn", "ingest.app:app", "--port"]


def started(command: list[str], port: int, **more: str) -> subprocess.Popen:
    environment = {
        **more,
        "LEDGER_WEBHOOK_SECRETS": SECRET,
        "LEDGER_INGEST_PORT": str(port),
        # No broker listens on this port.
        "LEDGER_KAFKA_BOOTSTRAP": f"127.0.0.1:{free_port()}",
    }
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=PROJECT,
        env=os.environ | environment,
        stderr=subprocess.PIPE,
        text=True,
    )


def get(port: int, path: str) -> httpx.Response | None:
    try:
        return httpx.get(f"http://127.0.0.1:{port}{path}", trust_env=False)
    except httpx.TransportError:
        return None


@pytest.mark.parametrize("as_module", [False, True])
def test_ingress_serves_without_kafka_until_sigterm(as_module):
    port = free_port()
    command = [*UVICORN, str(port)] if as_module else ["-c", SERVE]
    with started(command, port) as process:
        deadline = time.monotonic() + 30
        while (alive := get(port, "/healthz")) is None:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert alive.json() == {"status": "alive"}
        assert get(port, "/readyz").status_code == 503
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=20)
    # uvicorn's own command ends by raising the signal again; our command ends with exit code 0.
    assert process.returncode == (-signal.SIGTERM if as_module else 0)
    assert "Traceback" not in log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_our_server_does_not_reveal_its_software_and_ends_with_exit_code_0(number):
    port = free_port()
    with started(["-c", SERVE], port) as process:
        deadline = time.monotonic() + 30
        while (answer := get(port, "/healthz")) is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert "server" not in answer.headers
        process.send_signal(number)
        _, log = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "Traceback" not in log
    assert [json.loads(line)["event"] for line in log.splitlines()][:2] == [
        "libraries",
        "listening",
    ]


def test_the_error_for_a_port_in_use_names_the_setting_of_the_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with started(["-c", SERVE], port) as process:
            _, log = process.communicate(timeout=30)
    assert process.returncode == 1
    assert f"LEDGER_INGEST_PORT={port}: can't listen there" in log


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid", "::2"])
def test_the_error_for_an_address_of_another_machine_names_the_setting(host, monkeypatch):
    monkeypatch.setattr("ingest.server.configure", lambda *_: None)
    with pytest.raises(SettingsError, match=f"LEDGER_INGEST_HOST={host}"):
        serve(settings(ingest_host=host, ingest_port=free_port()))


def test_the_metrics_are_served_only_on_a_separate_port():
    port, metrics = free_port(), free_port()
    with started(["-c", SERVE], port, LEDGER_INGEST_METRICS_PORT=str(metrics)) as process:
        eventually(lambda: get(port, "/healthz"))
        assert b"plexy_ledger_ingress_deliveries_total" in get(metrics, "/metrics").content
        assert get(port, "/metrics").status_code == 404
        process.terminate()
        process.communicate(timeout=20)
    with started(["-c", SERVE], port) as process:
        eventually(lambda: get(port, "/healthz"))
        assert get(metrics, "/metrics") is None
        process.terminate()
        process.communicate(timeout=20)


@contextlib.contextmanager
def several(**more: str) -> Iterator[tuple[subprocess.Popen, int, set[int]]]:
    """Start an ingress with two child processes; yield the parent, the port and the child pids."""
    port = free_port()
    with started(["-c", SERVE], port, LEDGER_INGEST_PROCESSES="2", **more) as process:
        try:
            children = eventually(lambda: listeners(process.pid, port, count=2))
            yield process, port, children
        finally:
            process.kill()
            process.communicate()


def listeners(parent: int, port: int, count: int) -> set[int]:
    """Return the children's pids once ``count`` children listen; until then, an empty set."""
    children = set(map(int, Path(f"/proc/{parent}/task/{parent}/children").read_text().split()))
    table = Path("/proc/net/tcp").read_text()
    return children if table.count(f"0100007F:{port:04X} 00000000:0000 0A") == count else set()


def eventually(found, within_s: float = 30):
    deadline = time.monotonic() + within_s
    while not (it := found()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return it


def gone(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
class TestSeveralProcesses:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_two_processes_serve_one_port_and_end_with_exit_code_0_after_a_signal(self, number):
        with several() as (process, port, children):
            assert len(children) == 2
            assert all(get(port, "/healthz").status_code == 200 for _ in range(20))
            process.send_signal(number)
            _, log = process.communicate(timeout=20)
            assert process.returncode == 0
            assert all(map(gone, children))
        assert "Traceback" not in log

    def test_all_processes_end_if_one_process_ends_by_itself(self):
        with several() as (process, port, children):
            os.kill(min(children), signal.SIGKILL)
            _, log = process.communicate(timeout=20)
            assert process.returncode == 1
            assert all(map(gone, children))
            assert get(port, "/healthz") is None
        assert "process_ended" in log

    def test_one_page_has_the_metrics_of_both_processes(self):
        metrics = free_port()
        with several(LEDGER_INGEST_METRICS_PORT=str(metrics)) as (_, port, _):
            url, count = f"http://127.0.0.1:{port}{PATH}", 40
            # Each delivery has its own connection, which either process may accept.
            for n in range(count):
                body = event(f"evt_{n}")
                answer = httpx.post(url, content=body, headers=signed(body), trust_env=False)
                assert answer.status_code == 503
            page = Scraped.of(f"http://127.0.0.1:{metrics}/metrics", "ingress")
            assert page.by("outcome", "deliveries_total") == {"log_unavailable": count}
            assert page.by("answer", "answer_seconds_count") == {"5xx": count}

            def looked() -> bool:
                page = Scraped.of(f"http://127.0.0.1:{metrics}/metrics", "ingress")
                return set(page.by("process", "looked_timestamp_seconds")) == {"0", "1"}

            eventually(looked)

    def test_two_processes_end_if_the_port_for_metrics_is_in_use(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            metrics, port = taken.getsockname()[1], free_port()
            settings_ = {"LEDGER_INGEST_METRICS_PORT": str(metrics)}
            with started(["-c", SERVE], port, LEDGER_INGEST_PROCESSES="2", **settings_) as process:
                _, log = process.communicate(timeout=30)
                assert process.returncode == 1
                assert f"LEDGER_INGEST_METRICS_PORT={metrics}: can't listen there" in log
            eventually(lambda: get(port, "/healthz") is None)

    def test_no_child_outlives_the_parent(self):
        with several() as (process, _, children):
            process.kill()
            eventually(lambda: all(map(gone, children)))

    def test_a_second_ingress_cannot_share_the_port_of_an_ingress_with_two_processes(self):
        with (
            several() as (_, port, _),
            started(["-c", SERVE], port, LEDGER_INGEST_PROCESSES="2") as second,
        ):
            _, log = second.communicate(timeout=30)
            assert second.returncode == 1
            assert f"LEDGER_INGEST_PORT={port}: can't listen there" in log
