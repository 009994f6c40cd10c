"""The views answer as documented: schemathesis generates requests from their OpenAPI document."""

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from jsonschema import Draft202012Validator
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    negative_data_rejection,
    positive_data_acceptance,
    unsupported_method,
)

from cli.kafka.broker import EmbeddedKafka
from processors.views.openapi import describe
from tests.kafka.answers import TOKEN, ask, assert_problem, deliver, paid, refunded
from tests.kafka.harness import WorkerProcess, environment, until, wait_folded

pytestmark = pytest.mark.timeout(180)

bounded = hypothesis_settings(
    max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
# These checks would fail on correct answers: a schema can't define times and durations, the views
# ignore undeclared parameters, and a wait for an event that is never folded is meant to end with a
# 504. Methods other than GET are tested in tests/kafka/test_views.py.
NOT_FOR_SCHEMAS = [
    positive_data_acceptance,
    negative_data_rejection,
    unsupported_method,
    not_a_server_error,
]

DOCUMENT = describe()
# `/live` is an endless stream, so it is excluded here and tested in tests/kafka/test_overview.py.
schema = schemathesis.openapi.from_dict(DOCUMENT).exclude(path="/live")


@pytest.fixture(scope="module")
def env(kafka: EmbeddedKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    folder = tmp_path_factory.mktemp("schemathesis")
    env = environment(kafka.bootstrap, folder, api_token=TOKEN)
    with WorkerProcess(env) as worker:
        worker.wait_ready(90)
        deliver(env, paid("0", "0", "0"), refunded("1", "1", "0"), refunded("2", "2", "lone"))
        wait_folded(env, worker)
        # Both paths need the worker's sums.
        for path in ("/balances", "/orders?anomaly=any"):
            until(lambda path=path: ask(env, path).status == 200, within_s=30, what=path)
        yield env
        assert worker.process
        assert worker.process.poll() is None, worker.tail()
        assert "Traceback" not in worker.log_file.read_text()


@schema.parametrize()
@bounded
def test_generated_requests_to_views_are_answered_as_documented(
    case: Any, env: dict[str, str]
) -> None:
    # Generated waits of several seconds would use up the time of this test.
    if case.query and "wait" in case.query:
        case.query["wait"] = "1ms"
    address = f"http://127.0.0.1:{env['LEDGER_WEB_PORT']}"
    answer = case.call(base_url=address, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30)
    case.validate_response(answer, excluded_checks=NOT_FOR_SCHEMAS)
    assert answer.status_code not in {401, 500, 503}


@pytest.mark.parametrize(
    ("path", "documented"),
    [
        ("/orders/0", "/orders/{order_id}"),
        ("/orders/0/events?raw=true", "/orders/{order_id}/events"),
        ("/orders/0/proof", "/orders/{order_id}/proof"),
        ("/payments/0", "/payments/{payment_id}"),
        ("/events/1", "/events/{event_id}"),
        ("/events/1/places", "/events/{event_id}/places"),
        ("/orders", "/orders"),
        ("/orders?anomaly=any", "/orders"),
        ("/orders?anomaly=any&scope=worker", "/orders"),
        ("/balances?days=true", "/balances"),
        ("/rejected", "/rejected"),
        ("/overview", "/overview"),
        ("/overview?scope=worker", "/overview"),
        ("/tables", "/tables"),
        ("/tables?scope=worker", "/tables"),
    ],
)
def test_existing_documents_are_as_documented(
    env: dict[str, str], path: str, documented: str
) -> None:
    """Generated ids seldom exist in the ledger, but the ids in this test exist."""
    answer = ask(env, path)
    assert answer.status == 200
    answers = DOCUMENT["paths"][documented]["get"]["responses"]
    form = answers["200"]["content"]["application/json"]["schema"]
    validator = Draft202012Validator({**form, "components": DOCUMENT["components"]})
    assert [error.message for error in validator.iter_errors(answer.json)] == []


def test_the_openapi_document_is_not_served_without_the_token(env: dict[str, str]) -> None:
    assert_problem(ask(env, "/openapi.json", token=None), 401, "unauthorized")
