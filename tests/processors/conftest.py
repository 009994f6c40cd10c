"""Creates a worker's app for tests that need no Kafka."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp.test_utils import unused_port

from processors.engine import router
from processors.settings import WorkerSettings
from processors.topology import LedgerApp, new_app
from processors.worker import Worker
from tests.processors.engine.routing import PARTITIONS


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[LedgerApp]:
    """Return a worker's app that was never started, so it has no assignment of partitions."""
    settings = WorkerSettings(data_dir=tmp_path, partitions=PARTITIONS, web_port=unused_port())
    made = new_app(settings, worker_class=Worker, middlewares=[])
    made.http_client = router.worker_client()
    yield made
    await made.http_client.close()
