"""The views of a real worker require the token, accept any reference, and report every error."""

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from cli.kafka.broker import EmbeddedKafka
from ledger.envelope import MAX_ID_BYTES
from tests.kafka.answers import TOKEN, Answer, ask, assert_problem
from tests.kafka.harness import (
    HOLDS_WORK,
    WORKER,
    WorkerProcess,
    deliver,
    environment,
    second_of,
    until,
    wait_folded,
)

pytestmark = pytest.mark.timeout(240)

UNRESERVED = "-._~"

RUSSIAN = "Заказ 7/б"  # noqa: RUF001 - as in the sample
REFERENCES = [
    "ord_1",
    "a/b",
    "/leading",
    "trailing/",
    "a//b",
    "100%",
    "a%2Fb",
    "%",
    "a?b=c&d",
    "a#b",
    "a b",
    " around ",
    "a+b",
    "a;b=c,d:e@f",
    "a\\b",
    "\"quoted\" <and> 'so'",
    "{braces}",
    RUSSIAN,
    "注文 #42?",
    "\N{RECEIPT}",
    "caf\u00e9",
    "cafe\u0301",
    ".",
    "..",
    "a/../b",
    "../../etc/passwd",
    "line\N{LINE SEPARATOR}and\N{ZERO WIDTH JOINER}joiner",
    "healthz",
    "x" * MAX_ID_BYTES,
    "ю/" * (MAX_ID_BYTES // 3),
]


def encoded(reference: str, *, keep: str = "") -> str:
    """Percent-encode a reference; if it has only dots and slashes, encode the dots, too."""
    text = quote(reference, safe=UNRESERVED + keep)
    return text.replace(".", "%2E") if not reference.strip("./") else text


def payment(number: int, reference: str) -> dict[str, Any]:
    """Return an event whose payment and order both have the id ``reference``."""
    data = {"id": reference, "amount": 100 + number, "currency": "KZT", "status": "succeeded"}
    data["merchantReference"] = reference
    kind, created = "payment.succeeded", 1_700_000_000
    return {"id": f"evt_{number}", "type": kind, "created": created, "data": data}


@pytest.fixture(scope="module")
def env(kafka: EmbeddedKafka, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return environment(kafka.bootstrap, tmp_path_factory.mktemp("views"), api_token=TOKEN)


@pytest.fixture(scope="module")
def worker(env: dict[str, str]) -> Iterator[WorkerProcess]:
    """Run a worker that requires a token, and has an order and a payment for each reference."""
    with WorkerProcess(env) as started:
        started.wait_ready(90)
        deliver(env, [payment(n, reference) for n, reference in enumerate(REFERENCES)])
        wait_folded(env, started, within_s=90)
        yield started


@pytest.fixture(autouse=True)
def _still_runs(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "worker" in request.fixturenames:
        process = request.getfixturevalue("worker").process
        assert process.poll() is None


@pytest.mark.usefixtures("worker")
class TestToken:
    @pytest.mark.parametrize("token", [None, "", "wrong", TOKEN[:-1], f"{TOKEN}x", TOKEN.upper()])
    @pytest.mark.parametrize(
        "path",
        [
            "/overview",
            "/live",
            "/orders/ord_1",
            "/payments/ord_1",
            "/orders/nobody",
            "/nowhere",
            "/healthz/",
        ],
    )
    def test_without_the_right_token_every_answer_is_a_401_problem(self, env, path, token):
        answer = ask(env, path, token=token)
        assert_problem(answer, 401, "unauthorized")
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert TOKEN.encode() not in answer.body

    @pytest.mark.parametrize("method", ["POST", "DELETE", "HEAD"])
    def test_without_a_token_every_method_gets_401(self, env, method):
        assert ask(env, "/orders/ord_1", method=method, token=None).status == 401

    @pytest.mark.parametrize("token", [None, "wrong", TOKEN])
    @pytest.mark.parametrize(
        ("path", "document"),
        [("/healthz", {"status": "alive"}), ("/readyz", {"status": "ready"})],
    )
    def test_the_probes_need_no_token(self, env, path, document, token):
        answer = ask(env, path, token=token)
        assert (answer.status, answer.json) == (200, document)
        assert answer.headers["Content-Type"] == "application/json"

    @pytest.mark.parametrize("token", [None, "wrong"])
    def test_without_the_token_a_client_does_not_learn_which_orders_exist(self, env, token):
        existing, missing = (ask(env, f"/orders/{name}", token=token) for name in ("ord_1", "no"))
        assert existing.status == missing.status == 401
        assert existing.body == missing.body
        varying = {"Date"}
        for name in {*existing.headers, *missing.headers} - varying:
            assert existing.headers[name] == missing.headers[name]

    def test_an_authorization_of_any_other_kind_is_refused(self, env):
        connection = http.client.HTTPConnection("127.0.0.1", int(env["LEDGER_WEB_PORT"]))
        for value in (TOKEN, f"Basic {TOKEN}", f"bearer  {TOKEN}", "Bearer t\u00fcr".encode()):
            connection.request("GET", "/orders/ord_1", headers={"Authorization": value})
            response = connection.getresponse()
            assert (response.status, json.load(response)["code"]) == (401, "unauthorized")
        connection.close()


@pytest.mark.usefixtures("worker")
class TestReferences:
    @pytest.mark.parametrize("number", range(len(REFERENCES)))
    def test_an_order_is_found_under_any_reference(self, env, number):
        answer = ask(env, f"/orders/{encoded(REFERENCES[number])}")
        assert answer.status == 200, answer
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.json["order_id"] == REFERENCES[number]
        assert answer.json["totals"]["KZT"]["paid"] == 100 + number

    @pytest.mark.parametrize("number", range(len(REFERENCES)))
    def test_a_payment_is_found_under_any_id(self, env, number):
        answer = ask(env, f"/payments/{encoded(REFERENCES[number])}")
        assert answer.status == 200, answer
        assert answer.json["payment_id"] == answer.json["order_id"] == REFERENCES[number]
        assert answer.json["amount"] == 100 + number

    @pytest.mark.parametrize("reference", ["a/b", RUSSIAN, "a//b", "trailing/", "a/../b"])
    def test_slashes_need_no_encoding(self, env, reference):
        answer = ask(env, f"/orders/{encoded(reference, keep='/')}")
        assert (answer.status, answer.json["order_id"]) == (200, reference)

    def test_needless_encoding_gives_the_same_reference(self, env):
        answer = ask(env, "/orders/%6F%72%64%5f%31")
        assert (answer.status, answer.json["order_id"]) == (200, "ord_1")

    def test_a_query_is_not_part_of_the_reference(self, env):
        answer = ask(env, "/orders/ord_1?b=c")
        assert (answer.status, answer.json["order_id"]) == (200, "ord_1")


@pytest.mark.usefixtures("worker")
class TestErrors:
    @pytest.mark.parametrize(
        "path", ["nobody", "ord_1/", "ORD_1", "ord%5F1%20", "%FF%FE", "x" * 513, "x" * 4000]
    )
    @pytest.mark.parametrize(
        ("kind", "code"), [("orders", "order_not_found"), ("payments", "payment_not_found")]
    )
    def test_a_missing_order_or_payment_is_a_404_problem_whose_code_names_the_kind(
        self, env, kind, code, path
    ):
        assert_problem(ask(env, f"/{kind}/{path}"), 404, code)

    @pytest.mark.parametrize(
        "path", ["/orders/", "/events", "/payments", "/nowhere", "/order/ord_1", "//", "/%2E"]
    )
    def test_an_unknown_path_is_a_404_problem(self, env, path):
        assert_problem(ask(env, path), 404, "not_found")

    @pytest.mark.parametrize(
        "path",
        [
            "/table",
            "/table/",
            "/table/orders/",
            "/table/orders/ord_1/",
            "/tables/",
            "/router",
            "/router/",
            "/router/orders/",
            "/router/orders/ord_1/",
            "/graph",
            "/graph/",
            "/stats",
            "/stats/",
            "/assignment",
            "/assignment/",
            "/production_index",
        ],
    )
    def test_the_pages_of_faust_are_not_served(self, env, path):
        assert_problem(ask(env, path), 404, "not_found")

    @pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "SEARCH"])
    @pytest.mark.parametrize("path", ["/orders/ord_1", "/payments/ord_1", "/healthz", "/readyz"])
    def test_any_other_method_is_a_405_problem_that_names_the_allowed_methods(
        self, env, path, method
    ):
        answer = ask(env, path, method=method)
        assert_problem(answer, 405, "method_not_allowed")
        assert answer.headers["Allow"] == "GET,HEAD"

    @pytest.mark.parametrize("path", ["/orders/ord_1", "/payments/a%2Fb", "/healthz", "/readyz"])
    def test_head_has_the_headers_of_get_and_no_body(self, env, path):
        got, head = ask(env, path), ask(env, path, method="HEAD")
        assert (head.status, head.body) == (200, b"")
        for name in ("Content-Type", "Content-Length"):
            assert head.headers[name] == got.headers[name]

    def test_head_of_a_missing_order_is_404(self, env):
        answer = ask(env, "/orders/nobody", method="HEAD")
        assert (answer.status, answer.body) == (404, b"")

    def test_a_path_of_excessive_length_is_refused_and_the_next_request_is_served(self, env):
        assert ask(env, "/orders/" + "x" * 20_000).status in {400, 414}
        assert ask(env, "/orders/ord_1").status == 200


@pytest.mark.usefixtures("worker")
class TestLimits:
    """A request that is too long is refused with or without a token; the next request is served."""

    @pytest.mark.parametrize("token", [None, TOKEN])
    @pytest.mark.parametrize(
        "path",
        [
            f"/orders/{'x' * 10_000}",
            f"/payments/{'%2F' * 5_000}",
            f"/orders/ord_1?{'a=b&' * 5_000}",
            f"/{'/' * 10_000}",
        ],
    )
    def test_the_length_of_a_path_and_its_query_is_limited(self, env, path, token):
        assert ask(env, path, token=token).status in {400, 414}
        assert ask(env, "/orders/ord_1").status == 200

    @pytest.mark.parametrize("reference", ["x" * (MAX_ID_BYTES + 1), "\u044e" * MAX_ID_BYTES])
    @pytest.mark.parametrize("kind", ["orders", "payments"])
    def test_the_number_of_bytes_of_an_id_is_limited(self, env, kind, reference):
        answer = ask(env, f"/{kind}/{encoded(reference)}")
        assert answer.status == 404
        assert len(answer.body) < 1000

    def test_the_length_of_a_header_is_limited(self, env):
        assert ask(env, "/orders/ord_1", token="x" * 10_000).status == 400
        assert ask(env, "/orders/ord_1").status == 200


def test_either_of_two_workers_answers_for_any_reference(kafka, tmp_path):
    env = environment(kafka.bootstrap, tmp_path / "one", api_token=TOKEN)
    other = second_of(env, tmp_path / "two")
    with WorkerProcess(env) as one, WorkerProcess(other) as two:
        one.wait_ready(90)
        two.wait_ready(90)
        deliver(env, [payment(n, reference) for n, reference in enumerate(REFERENCES)])
        wait_folded(env, one, two, within_s=90)
        one.wait_ready(90)
        two.wait_ready(90)
        for reference in REFERENCES:
            for kind in ("orders", "payments"):
                answers = [ask(each, f"/{kind}/{encoded(reference)}") for each in (env, other)]
                assert [answer.status for answer in answers] == [200, 200], reference
                assert answers[0].json == answers[1].json
                assert answers[0].json["order_id"] == reference
        for each in (env, other):
            for n in range(8):
                assert_problem(ask(each, f"/orders/no{n}"), 404, "order_not_found")
            assert ask(each, "/orders/a%2Fb", token=None).status == 401
            assert ask(each, "/orders/a%2Fb", method="HEAD").status == 200


def test_two_workers_with_the_same_address_never_answer_404_for_an_order_that_exists(
    kafka, tmp_path
):
    """If a worker can't reach the other worker, it answers 503 for that worker's orders."""
    env = environment(kafka.bootstrap, tmp_path / "one", api_token=TOKEN)
    other = env | {"LEDGER_DATA_DIR": str(tmp_path / "two"), "LEDGER_WEB_BIND": "127.0.0.2"}
    bodies = [payment(number, f"ord_{number}") for number in range(40)]
    with WorkerProcess(env) as one, WorkerProcess(other) as two:
        one.wait_ready(90)
        until(lambda: "ready" in two.tail(), within_s=60, what="the other worker")
        deliver(env, bodies)
        wait_folded(env, one, two, within_s=90)
        answers = [ask(env, f"/orders/ord_{number}") for number in range(40)]
    # Other workers know the partitions of only one of two workers at the same address.
    assert {answer.status for answer in answers} <= {200, 503}
    assert all(answer.headers["Retry-After"] for answer in answers if answer.status == 503)


def test_a_worker_that_other_machines_can_reach_does_not_start_without_a_token(kafka, tmp_path):
    env = environment(kafka.bootstrap, tmp_path / "worker", web_bind="0.0.0.0")  # noqa: S104
    ended = subprocess.run(
        WORKER, env=os.environ | env, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert "LEDGER_WEB_BIND=0.0.0.0" in line
    assert "LEDGER_API_TOKEN" in line


def test_a_blank_token_counts_as_no_token(kafka, tmp_path):
    env = environment(kafka.bootstrap, tmp_path / "worker", web_bind="::", api_token=" ")
    ended = subprocess.run(
        WORKER, env=os.environ | env, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 2
    assert "LEDGER_API_TOKEN" in ended.stderr


def test_the_views_answer_503_while_partitions_move_between_workers(kafka, tmp_path):
    """A held chunk delays the rebalance, so that the test can observe the answers."""
    env = environment(kafka.bootstrap, tmp_path / "one", api_token=TOKEN)
    other = second_of(env, tmp_path / "two")
    data = ("/orders/ord_1", "/payments/ord_1", "/orders/nobody")
    with WorkerProcess(env, [sys.executable, "-c", HOLDS_WORK]) as one:
        one.wait_ready(90)
        deliver(env, [payment(1, "ord_1")])
        wait_folded(env, one)
        assert [ask(env, path).status for path in data] == [200, 200, 404]
        (tmp_path / "one" / "hold").touch()
        deliver(env, [payment(2, "ord_2")])
        until((tmp_path / "one" / "held").exists, within_s=20, what="a chunk at work")
        assert ask(env, "/readyz").status == 200
        with WorkerProcess(other) as two:
            until(lambda: ask(env, "/readyz").status == 503, within_s=60, what="a rebalance")
            for path in ("/readyz", *data):
                answer = ask(env, path)
                assert_problem(answer, 503, "not_ready")
                assert "sharing out their partitions (rebalancing)" in answer.json["detail"]
                assert int(answer.headers["Retry-After"]) > 0
            assert ask(env, "/healthz").status == 200
            (tmp_path / "one" / "hold").unlink()
            one.wait_ready()
            two.wait_ready()
            wait_folded(env, one, two)
            for each in (env, other):
                until(
                    lambda each=each: [ask(each, path).status for path in data] == [200, 200, 404],
                    within_s=30,
                    what="answers after the rebalance",
                )


def test_the_views_answer_503_until_the_tables_are_recovered(kafka, tmp_path):
    env = environment(kafka.bootstrap, tmp_path / "worker", api_token=TOKEN)
    with WorkerProcess(env) as worker:
        worker.wait_ready(90)
        deliver(env, [payment(n, f"ord_{n}") for n in range(200)])
        wait_folded(env, worker, within_s=90)
        worker.stop(20)
        worker.start()
        probes, orders = watch_start(env, worker)
    # At first, both pages answer 503. After its first 200, each page answers only 200.
    for answers in (probes, orders):
        statuses = [answer.status for answer in answers]
        assert statuses[0] == 503, statuses
        assert statuses == sorted(statuses, reverse=True)
        for answer in answers:
            if answer.status == 503:
                assert_problem(answer, 503, answer.json["code"])
                assert answer.headers["Retry-After"]
    assert {answer.json["code"] for answer in probes if answer.status == 503} == {"not_ready"}
    assert orders[-1].json["totals"]["KZT"]["paid"] == 107


def watch_start(env: dict[str, str], worker: WorkerProcess) -> tuple[list[Answer], list[Answer]]:
    """Request readiness and an order until both answers are 200; return all answers."""
    probes: list[Answer] = []
    orders: list[Answer] = []

    def ready() -> bool:
        assert worker.process
        assert worker.process.poll() is None, worker.tail()
        try:
            # Request the order first. If its answer is 200, the probe's next answer must be 200.
            orders.append(ask(env, "/orders/ord_7"))
            probes.append(ask(env, "/readyz"))
        except OSError:
            return False
        return probes[-1].status == orders[-1].status == 200

    until(ready, within_s=90, what="a worker that is ready")
    return probes, orders
