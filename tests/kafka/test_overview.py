"""Two workers return and stream the overview, and serve the page's files with strict headers.

The tests of the page in a browser are in ``page/``.
"""

import http.client
import json
import time
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import pytest

from cli.kafka.broker import EmbeddedKafka
from processors.views.page import OPEN_PAGES
from tests.kafka.answers import (
    TOKEN,
    ask,
    assert_problem,
    deliver,
    event,
    folded,
    get,
    paid,
    refunded,
)
from tests.kafka.harness import PARTITIONS, WorkerProcess, environment, two_workers, until

pytestmark = pytest.mark.timeout(180)

FILES = ["/ui/", "/ui/style.css", "/ui/main.js", "/ui/views/order.js", "/ui/currencies.json"]


@pytest.fixture(scope="module")
def workers(
    kafka: EmbeddedKafka, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[WorkerProcess, WorkerProcess]]:
    """Run two workers of one ledger."""
    folder = tmp_path_factory.mktemp("overview")
    one = environment(kafka.bootstrap, folder, api_token=TOKEN, minor_units="BHD:3")
    with two_workers(one, tmp_path_factory.mktemp("other")) as both:
        yield both


@pytest.fixture(scope="module")
def env(workers: tuple[WorkerProcess, WorkerProcess]) -> dict[str, str]:
    return workers[0].env


def overview(env: Mapping[str, str]) -> Any:
    """Wait until both workers have partitions and have summed their rows; return the overview."""

    def settled() -> Any:
        found = get(env, "/overview")
        shares = [worker["partitions"] for worker in found["workers"]]
        is_shared = len(shares) == 2 and all(shares) and found["ready"]
        return found if is_shared and found["totals"] is not None else None

    return until(settled, within_s=60, what="two workers at work")


def follow(env: Mapping[str, str], count: int) -> list[tuple[float, Any]]:
    """Return the stream's first ``count`` documents, each with its time of arrival."""
    connection = http.client.HTTPConnection("127.0.0.1", int(env["LEDGER_WEB_PORT"]), timeout=30)
    connection.request("GET", "/live", headers={"Authorization": f"Bearer {TOKEN}"})
    answer = connection.getresponse()
    assert answer.headers["Content-Type"] == "text/event-stream"
    found = []
    while len(found) < count:
        line = answer.readline()
        if line.startswith(b"data: "):
            found.append((time.monotonic(), json.loads(line.removeprefix(b"data: "))))
    connection.close()
    return found


def test_the_overview_counts_and_sums_the_records_of_all_workers(workers, env):
    before = overview(env)
    folded(
        env,
        *(paid(f"evt_{n}", f"pay_{n}", f"ord_{n}", 1000) for n in range(20)),
        paid("evt_yen", "pay_yen", "ord_yen", 7, currency="JPY"),
        refunded("evt_refund", "re_1", "pay_1", 300),
        refunded("evt_lone", "re_lone", "pay_lone", 5),
        refunded("evt_much", "re_much", "pay_2", 1001),
        event("evt_kept", "dispute.opened", "dp_1", 5),
        event("evt_bad", "payment.succeeded", "pay_bad", -5),
    )
    folded(env, *(paid(f"evt_{n}", f"pay_{n}", f"ord_{n}", 1000) for n in range(3)))

    def counted() -> Any:
        found = get(env, "/overview")
        return found if found["outcomes"].get("duplicate") == 3 else None

    found = until(counted, within_s=30, what="three duplicates")
    assert before["outcomes"] == {}
    assert found["outcomes"] == {"duplicate": 3, "folded": 24, "rejected": 1, "unfolded": 1}
    assert found["types"] == {
        "dispute.opened": 1,
        "payment.succeeded": 21,
        "refund.succeeded": 3,
    }
    assert found["rejected"] == {"amount_negative": 1}
    assert found["totals"] == {
        "JPY": {"paid": 7, "refunded": 0, "net": 7},
        "KZT": {"paid": 20_000, "refunded": 1306, "net": 18_694},
    }
    assert found["anomalies"] == {
        "any": 3,
        "refund_exceeds_payment": 1,
        "refund_without_payment": 1,
        "refused_event": 1,
    }
    assert found["lag"] == {"dedupe": 0, "payments": 0, "orders": 0}
    assert sum(found["per_second"]) <= 29
    alone = [get(worker.env, "/overview?scope=worker") for worker in workers]
    assert all(each["outcomes"] for each in alone), "a worker has counted nothing"
    assert sum(sum(each["outcomes"].values()) for each in alone) == 29
    parts = [each["workers"][0]["partitions"] for each in alone]
    assert sorted(chain.from_iterable(parts)) == list(range(PARTITIONS))


def test_an_anomaly_that_is_resolved_is_no_longer_counted(env):
    before = overview(env)["anomalies"].get("any", 0)
    folded(env, refunded("evt_early", "re_early", "pay_early", 5))
    until(
        lambda: get(env, "/overview")["anomalies"].get("any", 0) == before + 1,
        within_s=20,
        what="one more order with an anomaly",
    )
    folded(env, paid("evt_late", "pay_early", "ord_early"))
    until(
        lambda: get(env, "/overview")["anomalies"].get("any", 0) == before,
        within_s=20,
        what="the former number of anomalies",
    )


def test_the_stream_sends_a_document_each_second(env):
    overview(env)
    documents = follow(env, 3)
    assert 1 < documents[-1][0] - documents[0][0] < 10
    assert documents[0][1]["at_ms"] < documents[-1][1]["at_ms"]
    assert documents[0][1].keys() == get(env, "/overview").keys()
    deliver(env, paid("evt_followed", "pay_followed", "ord_followed", 1, currency="EUR"))
    until(
        lambda: follow(env, 1)[0][1]["totals"].get("EUR") == {"paid": 1, "refunded": 0, "net": 1},
        within_s=20,
        what="the delivery in the stream",
    )


def test_the_overview_reports_a_suspended_worker(workers, env):
    overview(env)
    other = workers[1]
    address = f"http://127.0.0.1:{other.env['LEDGER_WEB_PORT']}"
    other.freeze()
    try:
        # The first answers may still be overviews from before the suspension.
        found = until(
            lambda: next((o for o in [get(env, "/overview")] if not o["ready"]), None),
            within_s=8,
            what="the silent worker",
        )
        (silent,) = [worker for worker in found["workers"] if not worker["ready"]]
        assert (silent["address"], silent["reason"]) == (address, "the worker does not answer")
        assert found["totals"] is None
        assert found["missing"]
    finally:
        other.go_on()
    overview(env)


def test_a_worker_with_an_open_stream_stops_cleanly(kafka, tmp_path):
    env = environment(kafka.bootstrap, tmp_path, api_token=TOKEN)
    with WorkerProcess(env) as worker:
        worker.wait_ready(60)
        connection = http.client.HTTPConnection("127.0.0.1", int(env["LEDGER_WEB_PORT"]))
        connection.request("GET", "/live", headers={"Authorization": f"Bearer {TOKEN}"})
        answer = connection.getresponse()
        assert answer.readline().startswith(b"data: ")
        worker.stop(20)
        connection.close()
        assert "Traceback" not in worker.log_file.read_text()


def test_the_overview_shows_the_lag_of_the_workers(kafka, tmp_path):
    # Folding in many small chunks takes so long that the lag can be observed.
    env = environment(kafka.bootstrap, tmp_path, api_token=TOKEN, chunk_records=2)
    with WorkerProcess(env) as worker:
        worker.wait_ready(60)
        folded(env, paid("evt_first", "pay_first", "ord_first"))
        worker.stop(20)
    deliver(env, *(paid(f"evt_{n}", f"pay_{n}", f"ord_{n}") for n in range(600)))
    with WorkerProcess(env) as worker:
        worker.wait_ready(60)
        lags = []

        def caught_up() -> bool:
            lags.append(get(env, "/overview?scope=worker"))
            return bool(lags[-1]["outcomes"].get("folded") == 600) and not any(
                lags[-1]["lag"].values()
            )

        until(caught_up, within_s=90, what="nothing left to fold")
    seen = [each["lag"]["dedupe"] for each in lags if each["lag"]]
    assert max(seen) > 0
    assert all(lag <= 600 for lag in seen)


class TestFiles:
    @pytest.mark.parametrize("path", FILES)
    @pytest.mark.parametrize("token", [None, "wrong"])
    def test_the_files_of_the_page_need_no_token_and_have_strict_headers(self, env, path, token):
        answer = ask(env, path, token=token)
        assert answer.status == 200
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'self'; ")
        assert "unsafe" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        again = ask(env, path, token=token, headers={"If-None-Match": answer.headers["ETag"]})
        assert (again.status, again.body) == (304, b"")

    def test_each_file_has_its_content_type(self, env):
        types = [ask(env, path).headers["Content-Type"].partition(";")[0] for path in FILES]
        javascript = "text/javascript"
        assert types == ["text/html", "text/css", javascript, javascript, "application/json"]

    def test_the_page_uses_the_decimals_of_plexy_unless_a_setting_changes_them(self, env):
        decimals = ask(env, "/ui/currencies.json").json
        assert [decimals[code] for code in ("KZT", "JPY", "KWD", "BHD")] == [2, 0, 2, 3]

    @pytest.mark.parametrize(
        ("path", "location"), [("/", "/ui/"), ("/ui", "/ui/")], ids=["root", "no slash"]
    )
    def test_the_root_redirects_to_the_page(self, env, path, location):
        answer = ask(env, path, token=None)
        assert (answer.status // 100, answer.headers["Location"]) == (3, location)

    @pytest.mark.parametrize(
        "path",
        [
            "/ui/nothing.js",
            "/ui/__init__.py",
            "/ui/../worker.py",
            "/ui/..%2Fworker.py",
            "/ui/%2e%2e/worker.py",
            "/ui//etc/passwd",
            "/ui/views",
        ],
    )
    def test_no_other_file_is_served(self, env, path):
        assert_problem(ask(env, path), 404, "file_not_found")

    @pytest.mark.parametrize(
        "path", ["/ui/../orders", "/ui/%2e%2e/orders/ord_1", "/ui/..%2forders", "/uix", "//ui/"]
    )
    def test_without_a_token_a_path_that_begins_like_an_open_path_shows_no_data(self, env, path):
        answer = ask(env, path, token=None)
        assert answer.status in {401, 404}, answer

    def test_only_the_files_of_the_page_need_no_token(self):
        assert set(OPEN_PAGES) == {"/", "/ui", "/ui/{file}"}
