"""A port in use causes an error that names the port and its setting."""

import socket

import pytest

from cli.errors import PortTakenError
from cli.kafka.process import free_port
from cli.ports import WantedPort, require_free


def test_a_taken_port_is_reported_with_its_setting():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        wanted = WantedPort("worker", "127.0.0.1", port, "LEDGER_WEB_PORT")
        with pytest.raises(PortTakenError, match=f"127.0.0.1:{port} .*LEDGER_WEB_PORT"):
            require_free([wanted])


def test_one_port_for_two_programs_is_refused():
    port = free_port()
    wanted = [
        WantedPort("ingest", "127.0.0.1", port, "LEDGER_INGEST_PORT"),
        WantedPort("worker", "127.0.0.1", port, "LEDGER_WEB_PORT"),
    ]
    with pytest.raises(PortTakenError, match="LEDGER_INGEST_PORT and LEDGER_WEB_PORT are both"):
        require_free(wanted)


def test_a_port_is_free_as_soon_as_its_program_has_ended():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            connection, _ = server.accept()
            connection.close()
    require_free([WantedPort("ingest", "127.0.0.1", port, "LEDGER_INGEST_PORT")])
