"""The OpenAPI document of ingress is valid, and describes exactly the answers of ingress."""

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from ingest.answers import STATUS
from ingest.app import create_app
from ingest.openapi import describe
from ingest.settings import PAY_PATH
from ledger.pay import PayAmounts
from runtime.settings import Secret
from tests.fakes import FakeLog
from tests.ingest.conftest import PATH, event, settings

TAKING_PAY = {
    "pay_tokens": (Secret("pay_token_of_the_tests"),),
    "pay_amounts": PayAmounts.MINOR,
}
DOCUMENT = describe(settings(**TAKING_PAY))
JSON = "application/problem+json"


def codes_of(answer) -> set[str]:
    return set(answer["content"][JSON]["schema"]["properties"]["code"]["enum"])


def documented(path: str, method: str = "post") -> dict[str, set[str]]:
    answers = DOCUMENT["paths"][path][method]["responses"]
    return {status: codes_of(answer) for status, answer in answers.items() if status != "200"}


def test_the_document_is_valid_openapi_3_1():
    assert DOCUMENT["openapi"].startswith("3.1.")
    assert [error.message for error in OpenAPIV31SpecValidator(DOCUMENT).iter_errors()] == []


def test_the_validator_finds_a_fault():
    broken = DOCUMENT | {"paths": {"/x": {"get": {"responses": {"200": {}}}}}}
    assert list(OpenAPIV31SpecValidator(broken).iter_errors())


async def test_ingress_publishes_the_document(running):
    answer = await running.client.get("/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == describe(settings())
    assert PAY_PATH not in answer.json()["paths"]


def test_the_document_has_every_path_of_the_application():
    routes = create_app(settings(**TAKING_PAY), FakeLog()).routes
    assert {route.path for route in routes} == set(DOCUMENT["paths"])


@pytest.mark.parametrize(("path", "other"), [(PATH, "token_"), (PAY_PATH, "signature_")])
def test_each_of_the_two_webhook_paths_documents_every_code_except_those_specific_to_the_other(
    path, other
):
    listed = documented(path)
    found = {code: int(status) for status, codes in listed.items() for code in codes}
    missing = dict(STATUS.items() - found.items())
    del missing["not_found"]
    missing.pop("timestamp_out_of_tolerance", None)
    assert missing
    assert all(code.startswith(other) for code in missing)
    assert codes_of(DOCUMENT["components"]["responses"]["NotFound"]) == {"not_found"}


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/openapi.json"])
def test_every_page_lists_the_answers_common_to_all_requests(path):
    listed = documented(path, "get")
    assert {"400", "405", "431", "500"} <= set(listed)
    assert ("503" in listed) == (path == "/readyz")


def test_the_document_agrees_with_the_settings():
    limited = describe(settings(max_body_bytes=77))
    body = limited["paths"][PATH]["post"]["requestBody"]
    assert "77 bytes" in body["description"]
    unsigned = describe(settings(webhook_secrets=(), allow_unsigned=True))
    (signature,) = unsigned["paths"][PATH]["post"]["parameters"]
    assert not signature["required"]


async def test_a_body_that_matches_the_schema_is_accepted(running):
    required = DOCUMENT["components"]["schemas"]["Envelope"]["required"]
    assert set(required) == {"id", "type"}
    for name in required:
        answer = await running.deliver(event(**{name: None}))
        assert answer.json()["field"] == name
    assert (await running.deliver(event())).status_code == 200
