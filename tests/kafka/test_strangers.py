"""Workers misread no request; a worker that requires no token answers only under loopback names."""

import http.client
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.kafka.broker import EmbeddedKafka
from tests.kafka.answers import PROBLEM, TOKEN, Answer, ask, assert_problem
from tests.kafka.harness import WorkerProcess, environment

pytestmark = pytest.mark.timeout(240)

# Each worker answers for about half of these orders, and passes on all requests for other orders to
# the other worker.
ORDERS = range(16)
WITH_A_BODY = [
    {"Content-Length": "3"},
    {"Transfer-Encoding": "chunked"},
    {"Content-Length": "3", "Expect": "100-continue"},
]
# These are names under which a web page could reach a worker after DNS rebinding.
REBOUND = ["rebound.example", "rebound.example:6066", "localhost.rebound.example", "10.0.0.1"]
MALFORMED = ["a:b:c", "a b", "user@localhost", "[::1", ""]
PATHS = ["/orders/ord_1", "/overview", "/live", "/metrics", "/ui/", "/healthz", "/readyz", "/no"]


def send(env: dict[str, str], method: str, path: str, headers: dict[str, str]) -> Answer:
    """Send a request with a body of three bytes in the form that its headers declare."""
    connection = http.client.HTTPConnection("127.0.0.1", int(env["LEDGER_WEB_PORT"]), timeout=30)
    try:
        connection.putrequest(method, path)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.putheader("Authorization", f"Bearer {TOKEN}")
        chunked = "Transfer-Encoding" in headers
        connection.endheaders(b"3\r\nabc\r\n0\r\n\r\n" if chunked else b"abc")
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())
    finally:
        connection.close()


def test_a_body_never_makes_another_worker_misread_the_next_request(envs):
    """A worker that misread a request would log the request's start, which contains the token."""
    for env in envs:
        for headers in WITH_A_BODY:
            for method in ("GET", "HEAD"):
                statuses = {send(env, method, f"/orders/no_{n}", headers).status for n in ORDERS}
                assert statuses == {404}, (method, headers)
            assert {ask(env, f"/orders/no_{n}").status for n in ORDERS} == {404}
    for env in envs:
        log = (Path(env["LEDGER_DATA_DIR"]) / "worker.log").read_text()
        for hidden in (TOKEN, "Bearer", "aiohttp.server"):
            assert hidden not in log


@pytest.mark.parametrize("host", MALFORMED)
def test_a_malformed_host_gets_400_from_every_worker(env, host):
    for n in ORDERS:
        assert_problem(ask(env, f"/orders/no_{n}", headers={"Host": host}), 400, "invalid_host")


def test_workers_that_require_a_token_answer_under_any_name(env):
    for host in REBOUND:
        assert ask(env, "/overview", headers={"Host": host}).status == 200


@pytest.fixture(scope="module")
def open_env(
    kafka: EmbeddedKafka, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """Run a worker that requires no token."""
    env = environment(kafka.bootstrap, tmp_path_factory.mktemp("open"))
    with WorkerProcess(env) as worker:
        worker.wait_ready(90)
        yield env


@pytest.mark.parametrize("path", PATHS)
def test_a_web_page_under_a_rebound_name_reads_nothing_from_a_worker_that_requires_no_token(
    open_env, path
):
    for host in REBOUND:
        answer = ask(open_env, path, token=None, headers={"Host": host})
        assert_problem(answer, 421, "host_not_allowed")
        assert host.partition(":")[0] in answer.json["detail"]
        assert "LEDGER_API_TOKEN" in answer.json["detail"]
    for host in MALFORMED:
        assert ask(open_env, path, token=None, headers={"Host": host}).status == 400


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:1", "127.1.2.3", "[::1]:6066"])
def test_a_worker_that_requires_no_token_answers_under_loopback_names(open_env, host):
    for path in ("/overview", "/metrics", "/ui/", "/healthz", "/readyz"):
        answer = ask(open_env, path, token=None, headers={"Host": host})
        assert answer.status == 200
        assert answer.headers["Content-Type"] != PROBLEM
