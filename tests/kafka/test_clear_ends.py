"""A program that can't start ends with one line that names the setting and the remedy."""

import asyncio
import contextlib
import re
import socket
from pathlib import Path
from typing import Any, Self

import httpx
import pytest

from cli.kafka.broker import EmbeddedKafka
from faults.disk import can_mount, small_disk
from runtime.kafka.new_connections import try_new_connections
from runtime.kafka.topic_looks import TopicsError
from runtime.kafka.topics import TopicSettings, ensure_topics
from tests.ingest.conftest import PATH, SECRET, event, signed
from tests.kafka.harness import (
    WorkerProcess,
    environment,
    free_port,
    names_of,
    run,
    second_of,
    until,
    wait_folded,
)
from tests.kafka.programs import INGEST, ask_ingress, program, wait_ingress
from tests.kafka.topics import alter

pytestmark = pytest.mark.timeout(240)

needs_mount = pytest.mark.skipif(not can_mount(), reason="mounting a small disk requires root")
needs_ipv6 = pytest.mark.skipif(
    not Path("/proc/net/if_inet6").exists(), reason="this machine has no IPv6"
)


def last_words(worker: WorkerProcess, within_s: float = 60) -> str:
    """Wait until a worker ends; check that its log has no traceback; return the log's last line."""
    assert worker.wait(within_s) in {1, 2}
    output = worker.log_file.read_text()
    assert "Traceback" not in output, output
    return output.splitlines()[-1]


def test_a_worker_whose_port_is_taken_names_the_settings_for_a_different_port(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    env = environment(kafka.bootstrap, tmp_path)
    port = env["LEDGER_WEB_PORT"]
    with socket.create_server(("127.0.0.1", int(port))), WorkerProcess(env) as worker:
        line = last_words(worker)
    assert f"LEDGER_WEB_BIND=127.0.0.1, LEDGER_WEB_PORT={port}: can't listen there (Address" in line
    assert "stop the program that listens there, or choose another port" in line


def test_a_worker_on_another_workers_folder_says_that_the_folder_is_in_use(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    env = environment(kafka.bootstrap, tmp_path)
    with WorkerProcess(env) as first:
        first.wait_ready()
        second = WorkerProcess(env | {"LEDGER_WEB_PORT": str(free_port())})
        second.log_file = tmp_path / "second.log"
        with second:
            line = last_words(second)
    assert f"LEDGER_DATA_DIR={tmp_path} belongs to a running worker: stop that worker" in line


@needs_mount
@pytest.mark.parametrize("used", [False, True], ids=["new", "used"])
def test_a_folder_that_can_t_be_written_is_reported_with_the_remedy(
    kafka: EmbeddedKafka,
    tmp_path: Path,
    used: bool,  # noqa: FBT001
) -> None:
    folder = tmp_path / "disk"
    with small_disk(folder, 96) as disk:
        env = environment(kafka.bootstrap, disk.folder / "data", table_memory_mb=24)
        if used:
            (disk.folder / "data" / "tables").mkdir(parents=True)
            (disk.folder / "data" / "worker-id").write_text("me")
        with disk.read_only():
            worker = WorkerProcess(env)
            worker.log_file = tmp_path / "worker.log"
            with worker:
                line = last_words(worker)
    assert line.startswith(
        f"plexy-ledger: LEDGER_DATA_DIR={env['LEDGER_DATA_DIR']} can't be written"
    )
    assert "Read-only file system" in line
    assert line.endswith("mount the folder's file system writable, and start the worker again")


# This is the address that the broker advertises. In Kafka's protocol, the length of a text comes
# before the text.
TRUE = b"\x00\x09127.0.0.1"


async def copied(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: bytes
) -> None:
    """Copy bytes from a reader to a writer, and replace the address that the broker advertises."""
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(2**16):
            writer.write(data.replace(TRUE, address))
            await writer.drain()
    writer.close()


class Proxy:
    """Connects clients with a broker.

    On a connection that begins while ``misleads`` is true, the broker's advertised address is
    replaced by an address that nothing listens on.
    """

    def __init__(self, kafka: EmbeddedKafka) -> None:
        self._host, _, self._port = kafka.bootstrap.partition(":")
        self.misleads = True
        self.bootstrap = ""
        self.named = f"but its brokers advertise 127.9.9.9:{self._port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._pass_on, "127.0.0.1", 0)
        self.bootstrap = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_broker, to_broker = await asyncio.open_connection(self._host, int(self._port))
        false = b"\x00\x09127.9.9.9" if self.misleads else TRUE
        ways = [copied(reader, to_broker, false), copied(from_broker, writer, false)]
        await asyncio.gather(*ways)


async def test_an_advertised_address_that_can_t_be_reached_is_reported(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    async with Proxy(kafka) as proxy:
        env = environment(proxy.bootstrap, tmp_path, allow_unsigned="true")
        file = str(tmp_path / "file")
        for command in ("topics", "doctor worker", "status", "verify", f"export-log {file}"):
            code, output = await asyncio.to_thread(run, env, *command.split())
            assert code == 1, (command, output)
            said = " ".join(output.split())
            assert f"Kafka answers at {proxy.bootstrap}, {proxy.named}" in said, command
            assert "correct `advertised.listeners` of the brokers" in said
        with pytest.raises(TopicsError, match=re.escape(proxy.named)):
            await try_new_connections(TopicSettings.from_environment(env))


async def test_a_running_ingress_names_the_advertised_address_that_it_can_no_longer_reach(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    async with Proxy(kafka) as proxy:
        proxy.misleads = False
        env = environment(proxy.bootstrap, tmp_path, allow_unsigned="true", ingest_port=free_port())
        log = names_of(env).webhooks
        direct = env | {"LEDGER_KAFKA_BOOTSTRAP": kafka.bootstrap}
        await ensure_topics(TopicSettings.from_environment(direct))
        with program("ingest", env) as ingress:
            await asyncio.to_thread(wait_ingress, ingress)
            proxy.misleads = True
            # When ingress finds a wrong topic setting, it opens a new connection.
            await alter(direct, log, retention_ms="1000")
            lines = await asyncio.to_thread(unreachable_lines, ingress)
            assert f"Kafka answers at {proxy.bootstrap}, {proxy.named}" in lines[0]["detail"]
            assert "correct `advertised.listeners` of the brokers" in lines[0]["detail"]
            status, page = await asyncio.to_thread(ask_ingress, env, "/readyz")
            assert (status, "127.9.9.9" in page) == (503, False), page
            proxy.misleads = False
            await alter(direct, log, retention_ms="-1")
            await asyncio.to_thread(wait_ingress, ingress)


def unreachable_lines(ingress: WorkerProcess) -> list[dict[str, Any]]:
    """Wait until an ingress has logged that it can't reach an advertised address."""
    reason = "a broker can't be reached at the address that it advertises"
    found: list[dict[str, Any]] = until(
        lambda: [each for each in ingress.logged("log_unavailable") if each["reason"] == reason],
        within_s=60,
        what=reason,
    )
    return found


@needs_ipv6
def test_workers_and_ingress_serve_clients_over_ipv6_and_workers_reach_each_other_over_ipv6(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    ingest_port = free_port()
    env = environment(
        kafka.bootstrap,
        tmp_path / "one",
        web_bind="::1",
        web_host="::1",
        ingest_host="::1",
        ingest_port=ingest_port,
        webhook_secrets=SECRET,
    )
    other = second_of(env, tmp_path / "two")
    assert run(env, "topics")[0] == 0
    ingress_env = env | {"LEDGER_DATA_DIR": str(tmp_path / "ingest")}
    workers = [f"http://[::1]:{each['LEDGER_WEB_PORT']}" for each in (env, other)]
    ingest = f"http://[::1]:{ingest_port}"
    with (
        WorkerProcess(env) as one,
        WorkerProcess(other) as two,
        WorkerProcess(ingress_env, INGEST) as ingress,
        httpx.Client(trust_env=False, timeout=10) as client,
    ):

        def ready(url: str) -> bool:
            for each in (one, two, ingress):
                assert each.process
                assert each.process.poll() is None, each.tail()
            try:
                return client.get(f"{url}/readyz").status_code == 200
            except httpx.TransportError:
                return False

        for url in (*workers, ingest):
            until(lambda url=url: ready(url), within_s=90, what=f"{url} is ready\n{one.tail()}")
        for number in range(12):
            data = {"id": f"pay_{number}", "amount": 5, "currency": "KZT", "order": f"o{number}"}
            body = event(f"evt_{number}", data=data)
            assert client.post(ingest + PATH, content=body, headers=signed(body)).status_code == 200
        wait_folded(env, one, two)
        # Each worker is asked for every order: its own orders, and the other worker's orders.
        for url in workers:
            statuses = [client.get(f"{url}/orders/o{n}").status_code for n in range(12)]
            assert set(statuses) == {200}, statuses
        code, output = run(env, "status")
        assert code == 0, output
