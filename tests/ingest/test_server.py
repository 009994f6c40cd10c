"""The server as a process: it takes its port or says why not, and ends when it is told to."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from cli.kafka_process import free_port
from ingest.server import serve
from runtime.settings import SettingsError
from tests.ingest.conftest import SECRET, settings

PROJECT = Path(__file__).parents[2]
SERVE = (
    "import os; from ingest.server import serve; from ingest.settings import IngestSettings; "
    "serve(IngestSettings.from_environment(os.environ))"
)
UVICORN = ["-m", "uvicorn", "ingest.app:app", "--port"]


def started(command: list[str], port: int) -> subprocess.Popen:
    environment = {
        "LEDGER_WEBHOOK_SECRETS": SECRET,
        "LEDGER_INGEST_PORT": str(port),
        # Nobody is there.
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
def test_it_serves_without_kafka_until_sigterm(as_module):
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
        _, told = process.communicate(timeout=20)
    # uvicorn's own command raises the signal again; ours ends as it should.
    assert process.returncode == (-signal.SIGTERM if as_module else 0)
    assert "Traceback" not in told


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_our_server_tells_nobody_what_it_runs_on_and_ends_with_0(number):
    port = free_port()
    with started(["-c", SERVE], port) as process:
        deadline = time.monotonic() + 30
        while (answer := get(port, "/healthz")) is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert "server" not in answer.headers
        process.send_signal(number)
        _, told = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "Traceback" not in told


def test_a_port_that_is_taken_is_refused_by_name():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with started(["-c", SERVE], port) as process:
            _, told = process.communicate(timeout=30)
    assert process.returncode == 1
    assert f"LEDGER_INGEST_PORT={port}: can't listen there" in told


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid", "::2"])
def test_an_address_that_is_not_ours_is_refused_by_name(host, monkeypatch):
    monkeypatch.setattr("ingest.server.configure", lambda *_: None)
    with pytest.raises(SettingsError, match=f"LEDGER_INGEST_HOST={host}"):
        serve(settings(ingest_host=host, ingest_port=free_port()))
