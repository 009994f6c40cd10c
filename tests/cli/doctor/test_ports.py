"""The ports: who has one that is wanted is named, and one of ours may be as it should."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from prometheus_client import CollectorRegistry, start_http_server

from cli.doctor.findings import Level
from cli.doctor.ports import check_ports
from cli.kafka.process import free_port
from ingest.metrics import IngressMetrics, new_rows, serve_metrics
from tests.cli.doctor.conftest import one, only, with_settings


class Alive(BaseHTTPRequestHandler):
    """Answers as the ledger's programs do."""

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
    finding = one(Level.OK, check_ports(patient))
    for program in ("ingest", "worker", "audit", "kafka"):
        assert f"({program})" in finding.what


@pytest.mark.parametrize(
    ("variable", "program"),
    [
        ("ingest_port", "ingest"),
        ("ingest_metrics_port", "ingest"),
        ("web_port", "worker"),
        ("audit_port", "audit"),
    ],
)
def test_a_taken_port_is_named_with_who_has_it_and_the_setting(patient, variable, program):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        taken.settimeout(0.1)
        finding = one(Level.PROBLEM, check_ports(with_settings(patient, **{variable: port})))
    assert f"{program} can't listen on 127.0.0.1:{port}" in finding.what
    assert f"(pid {os.getpid()}) has it" in finding.what
    assert f"choose another one with LEDGER_{variable.upper()}" in finding.remedy


def test_a_port_that_a_program_of_the_ledger_has_is_a_warning(patient):
    with alive() as port:
        finding = one(Level.WARNING, check_ports(with_settings(patient, web_port=port)))
    assert "a program of the ledger answers there" in finding.what
    assert "nothing, if that is this one" in finding.remedy


def test_the_metrics_of_a_running_ingress_are_told_from_those_of_another_program(patient):
    ours = free_port()
    serve_metrics(IngressMetrics(new_rows(1), 1), "127.0.0.1", ours)
    finding = one(Level.WARNING, check_ports(with_settings(patient, ingest_metrics_port=ours)))
    assert f"ingest can't listen on 127.0.0.1:{ours}" in finding.what
    assert "a program of the ledger answers there" in finding.what
    server, thread = start_http_server(0, "127.0.0.1", CollectorRegistry())
    try:
        theirs = with_settings(patient, ingest_metrics_port=server.server_port)
        one(Level.PROBLEM, check_ports(theirs))
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_one_port_for_two_programs_is_named_once(patient):
    port = patient.environment["LEDGER_WEB_PORT"]
    finding = one(Level.PROBLEM, check_ports(with_settings(patient, audit_port=port)))
    assert finding.what == f"LEDGER_AUDIT_PORT and LEDGER_WEB_PORT are both {port}"


def test_only_the_ports_of_the_named_programs_are_looked_at(patient):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        busy = with_settings(patient, "ingest", web_port=taken.getsockname()[1])
        assert only(Level.PROBLEM, check_ports(busy)) == []
    assert list(check_ports(with_settings(patient, "send"))) == []


def test_settings_that_cannot_be_read_do_not_hide_other_ports(patient):
    broken = with_settings(patient, "worker", "ingest", web_port="x")
    assert "(ingest)" in one(Level.OK, check_ports(broken)).what
