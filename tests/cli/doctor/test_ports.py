"""A port taken by a program of the ledger is a warning; any other taken port is a problem."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from prometheus_client import CollectorRegistry, start_http_server

from cli.doctor.checks import Level
from cli.doctor.ports import check_ports
from cli.kafka.process import free_port
from ingest.metrics import IngressMetrics, new_rows, serve_metrics
from tests.cli.doctor.conftest import one, only, with_settings


class Alive(BaseHTTPRequestHandler):
    """Answers requests for `/healthz` as the ledger's programs do."""

    def do_GET(self):
        body = b'{"status":"alive"}' if self.path == "/healthz" else b"{}"
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments):
        pass


@contextmanager
def alive() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), Alive) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_free_ports_are_listed_with_their_programs(patient):
    result = one(Level.OK, check_ports(patient))
    for program in ("ingest", "worker", "audit", "kafka"):
        assert f"({program})" in result.what


@pytest.mark.parametrize(
    ("variable", "program"),
    [
        ("ingest_port", "ingest"),
        ("ingest_metrics_port", "ingest"),
        ("web_port", "worker"),
        ("audit_port", "audit"),
    ],
)
def test_a_taken_port_is_a_problem_that_names_the_process_and_the_setting(
    patient, variable, program
):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        taken.settimeout(0.1)
        result = one(Level.PROBLEM, check_ports(with_settings(patient, **{variable: port})))
    assert f"{program} can't listen on 127.0.0.1:{port}" in result.what
    assert f"(pid {os.getpid()}) has it" in result.what
    assert f"choose another port with LEDGER_{variable.upper()}" in result.remedy


def test_a_port_taken_by_a_program_of_the_ledger_is_a_warning(patient):
    with alive() as port:
        result = one(Level.WARNING, check_ports(with_settings(patient, web_port=port)))
    assert "a program of the ledger answers there" in result.what
    assert "do nothing if this is the intended program" in result.remedy


def test_the_metrics_of_ingress_are_distinguished_from_the_metrics_of_other_programs(patient):
    ours = free_port()
    serve_metrics(IngressMetrics(new_rows(1), 1), "127.0.0.1", ours)
    result = one(Level.WARNING, check_ports(with_settings(patient, ingest_metrics_port=ours)))
    assert f"ingest can't listen on 127.0.0.1:{ours}" in result.what
    assert "a program of the ledger answers there" in result.what
    server, thread = start_http_server(0, "127.0.0.1", CollectorRegistry())
    try:
        theirs = with_settings(patient, ingest_metrics_port=server.server_port)
        one(Level.PROBLEM, check_ports(theirs))
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_one_port_for_two_programs_is_reported_once(patient):
    port = patient.environment["LEDGER_WEB_PORT"]
    result = one(Level.PROBLEM, check_ports(with_settings(patient, audit_port=port)))
    assert result.what == f"LEDGER_AUDIT_PORT and LEDGER_WEB_PORT are both {port}"


def test_only_the_ports_of_the_named_programs_are_checked(patient):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        busy = with_settings(patient, "ingest", web_port=taken.getsockname()[1])
        assert only(Level.PROBLEM, check_ports(busy)) == []
    assert list(check_ports(with_settings(patient, "send"))) == []


def test_an_invalid_port_setting_does_not_prevent_the_check_of_other_ports(patient):
    broken = with_settings(patient, "worker", "ingest", web_port="x")
    assert "(ingest)" in one(Level.OK, check_ports(broken)).what
