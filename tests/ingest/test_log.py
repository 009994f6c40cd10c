"""Without Kafka, ingress's log refuses appends; `test_ingest_on_kafka.py` tests it with Kafka."""

import asyncio
import logging
import time

import pytest
from structlog.testing import CapturingLogger

import ingest.log
from ingest.log import LogUnavailableError, WebhookLog
from ingest.records import NewRecord
from tests.fakes import until
from tests.ingest.conftest import settings

RECORD = NewRecord("plexy.webhooks", b"evt_1", b"{}", [], 1)


@pytest.fixture
def lines(monkeypatch) -> CapturingLogger:
    captured = CapturingLogger()
    monkeypatch.setattr(ingest.log, "_log", captured)
    return captured


@pytest.fixture
async def nobody():
    """Yield the address of a server that closes each connection and never answers."""
    server = await asyncio.start_server(lambda _r, w: w.close(), "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    yield f"{host}:{port}"
    server.close()
    await server.wait_closed()


async def test_without_kafka_an_append_fails_at_once_and_the_error_names_the_reason(nobody):
    log = WebhookLog(settings(kafka_bootstrap=nobody))
    await log.start()
    try:
        began = time.monotonic()
        with pytest.raises(LogUnavailableError, match="Kafka does not answer"):
            await log.append(RECORD, asyncio.get_running_loop().time() + 10)
        assert time.monotonic() - began < 5
        assert await log.trouble() == "Kafka does not answer"
    finally:
        await log.close()


async def test_an_append_fails_before_the_log_is_started():
    log = WebhookLog(settings())
    with pytest.raises(LogUnavailableError, match="not connected yet"):
        await log.append(RECORD, asyncio.get_running_loop().time() + 10)


async def test_an_absent_kafka_is_logged_once(nobody, lines, monkeypatch):
    attempts = 0
    opened = ingest.log.open_producer

    def counting(*arguments):
        nonlocal attempts
        attempts += 1
        return opened(*arguments)

    monkeypatch.setattr(ingest.log, "open_producer", counting)
    monkeypatch.setattr(ingest.log, "_RECONNECT_S", 0.01)
    log = WebhookLog(settings(kafka_bootstrap=nobody))
    await log.start()
    await until(lambda: attempts > 5)
    await log.close()
    [logged] = lines.calls
    assert (logged.method_name, logged.args) == ("warning", ("log_unavailable",))
    assert nobody in logged.kwargs["detail"]
    assert logged.kwargs["aiokafka"]


async def test_the_reported_trouble_does_not_contain_the_address_of_a_broker(nobody):
    log = WebhookLog(settings(kafka_bootstrap=nobody))
    await log.start()
    assert nobody.rpartition(":")[2] not in (await log.trouble())
    await log.close()


async def test_aiokafka_logs_its_own_lines_again_once_the_webhook_log_is_closed(nobody):
    logger = logging.getLogger("aiokafka")
    before = (list(logger.handlers), logger.propagate)
    log = WebhookLog(settings(kafka_bootstrap=nobody))
    await log.start()
    assert not logger.propagate
    await log.close()
    assert (logger.handlers, logger.propagate) == before


async def test_a_bug_in_the_client_does_not_end_the_attempts_to_connect(lines, monkeypatch):
    attempts = 0

    def broken(_settings):
        nonlocal attempts
        attempts += 1
        raise AssertionError("a bug")

    monkeypatch.setattr(ingest.log, "open_producer", broken)
    monkeypatch.setattr(ingest.log, "_RECONNECT_S", 0.01)
    log = WebhookLog(settings())
    await log.start()
    await until(lambda: attempts > 2)
    await log.close()
    assert [call.kwargs["detail"] for call in lines.calls] == ["AssertionError('a bug')"]
