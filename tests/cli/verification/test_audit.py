"""The audit listens on its configured address even while Kafka is down."""

import os
import subprocess
import sys

import httpx
import pytest

from cli.kafka.process import free_port
from tests.kafka.harness import until


def get(host: str, port: int) -> int:
    """Return the status of the probe, or 0 while no program listens."""
    try:
        return httpx.get(f"http://{host}:{port}/healthz", trust_env=False).status_code
    except httpx.TransportError:
        return 0


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has one loopback address")
def test_the_audit_listens_only_on_the_configured_address():
    port = free_port()
    settings = {
        "LEDGER_AUDIT_HOST": "127.0.0.2",
        "LEDGER_AUDIT_PORT": str(port),
        "LEDGER_KAFKA_BOOTSTRAP": f"127.0.0.1:{free_port()}",
        "LEDGER_WEBHOOK_SECRETS": "whsec_of_the_test",
    }
    with subprocess.Popen(
        [sys.executable, "-m", "cli", "audit"], env=os.environ | settings
    ) as audit:
        try:
            until(lambda: get("127.0.0.2", port) == 200, within_s=30, what="an answer")
            assert get("127.0.0.1", port) == 0
        finally:
            audit.terminate()
    assert audit.returncode == 0
