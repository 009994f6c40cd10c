"""A program reads only `LEDGER_*` and OpenTelemetry's variables from its environment.

Other programs set variables that Faust, uvicorn or another library could take for its own settings.
Kubernetes also sets such variables: it sets some for each Service.
"""

import signal
from pathlib import Path

import httpx
import pytest

from cli.kafka.broker import EmbeddedKafka
from tests.ingest.conftest import PATH, SECRET, event, signed
from tests.kafka.harness import (
    WORKER,
    WorkerProcess,
    deliver,
    environment,
    free_port,
    names_of,
    orders,
    read_topic,
    run,
    wait_folded,
)
from tests.kafka.programs import FAUST, INGEST, UVICORN, wait_ingress
from tests.scraped import Scraped

pytestmark = pytest.mark.timeout(240)

NOWHERE = "127.0.0.1:1"
FOREIGN = {
    "BROKER_URL": f"kafka://{NOWHERE}",
    "BROKER_CONSUMER_URL": f"kafka://{NOWHERE}",
    "BROKER_PRODUCER_URL": f"kafka://{NOWHERE}",
    "BROKER_MAX_POLL_RECORDS": "one",
    "CONSUMER_GROUP_INSTANCE_ID": "everyone",
    "APP_VERSION": "7",
    "APP_STORE": "memory://",
    "APP_DATADIR": "/nowhere",
    "APP_WEB_ENABLED": "no",
    "APP_WEB_TABLES_ENABLED": "yes",
    "TABLE_STANDBY_REPLICAS": "9",
    "TOPIC_PARTITIONS": "11",
    "NODE_CANONICAL_URL": "http://nowhere",
    "PROCESSING_GUARANTEE": "exactly_once",
    # Kubernetes sets `WEB_PORT` for a Service named `web`.
    "WEB_PORT": "tcp://10.0.0.7:80",
    "WEB_HOST": "nowhere",
    "WEB_BIND": "0.0.0.0",  # noqa: S104
    "DJANGO_SETTINGS_MODULE": "nowhere.settings",
    "PROMETHEUS_MULTIPROC_DIR": "/nowhere",
    "PROMETHEUS_DISABLE_CREATED_SERIES": "true",
    "HTTP_PROXY": f"http://{NOWHERE}",
    "http_proxy": f"http://{NOWHERE}",
    "ALL_PROXY": f"http://{NOWHERE}",
    "FORWARDED_ALLOW_IPS": "*",
}


@pytest.fixture
def env(kafka: EmbeddedKafka, tmp_path: Path) -> dict[str, str]:
    return environment(kafka.bootstrap, tmp_path / "ledger", webhook_secrets=SECRET) | FOREIGN


@pytest.mark.parametrize(
    ("command", "more"),
    [
        (WORKER, {"F_DATADIR": "/nowhere", "F_WEB_PORT": "none", "FAUST_LOOP": "gevent"}),
        (FAUST, {}),
    ],
    ids=["plexy-ledger worker", "faust worker"],
)
def test_a_worker_ignores_the_variables_of_other_programs(env, command, more):
    with WorkerProcess(env | more, command) as worker:
        worker.wait_ready(90)
        deliver(env, orders([1]))
        wait_folded(env, worker)
        assert worker.get("/orders/ord_1")[0] == 200
        url = f"http://127.0.0.1:{env['LEDGER_WEB_PORT']}"
        assert Scraped.of(f"{url}/metrics", "worker").by("type", "folded_total")
        assert httpx.get(f"{url}/table/orders/", trust_env=False).status_code == 404
        worker.stop(20)
    tables = Path(env["LEDGER_DATA_DIR"]) / "tables"
    assert list(tables.rglob("orders-*.db"))


@pytest.mark.parametrize(
    "command", [INGEST, UVICORN], ids=["plexy-ledger ingest", "uvicorn ingest.app:app"]
)
def test_ingress_ignores_the_variables_of_other_programs(env, command):
    port, metrics = free_port(), free_port()
    ours = {"LEDGER_INGEST_PORT": str(port), "LEDGER_INGEST_METRICS_PORT": str(metrics)}
    # The command `uvicorn` may read uvicorn's variables, so only our command gets this variable.
    more = {"WEB_CONCURRENCY": "auto"} if command is INGEST else {}
    assert run(env, "topics")[0] == 0
    at = [str(port)] if command is UVICORN else []
    with WorkerProcess(env | ours | more, [*command, *at]) as ingress:
        wait_ingress(ingress)
        with httpx.Client(trust_env=False) as client:
            body = event("evt_1")
            url = f"http://127.0.0.1:{port}{PATH}"
            assert client.post(url, content=body, headers=signed(body)).status_code == 200
            if command is INGEST:
                page = Scraped.of(f"http://127.0.0.1:{metrics}/metrics", "ingress")
                assert page.by("outcome", "deliveries_total") == {"accepted": 1}
        ingress.signal(signal.SIGTERM)
        ingress.wait(within_s=20)
    (record,) = read_topic(env, names_of(env).webhooks)
    assert record.key == b"evt_1"
