"""schemathesis generates requests from ingress's OpenAPI document; each answer is as documented.

Every answer has a documented status and form, and none is a server error. Signed requests pass the
check of the signature, so they also test the document's description of the body.
"""

import copy
import time
from collections import Counter
from collections.abc import Iterator

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from cli.kafka.broker import EmbeddedKafka
from ingest.openapi import describe
from ingest.settings import PAY_PATH
from ledger.pay import PayAmounts
from ledger.signature import sign
from runtime.settings import Secret
from tests.ingest.conftest import PATH, SECRET, settings
from tests.kafka.harness import environment, free_port
from tests.kafka.programs import program, wait_ingress

pytestmark = pytest.mark.timeout(180)

TOKEN = Secret("pay_token_of_the_tests")


bounded = hypothesis_settings(
    max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)


class Signed(requests.auth.AuthBase):
    """Replaces the generated signature with a valid signature of the body, and adds a token."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        body = request.body or b""
        raw = body.encode() if isinstance(body, str) else body
        request.headers["Plexy-Signature"] = sign(raw, SECRET.encode(), int(time.time()))
        request.headers["Authorization"] = f"Bearer {TOKEN.reveal()}"
        return request


@pytest.fixture(scope="module")
def env(kafka: EmbeddedKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    folder = tmp_path_factory.mktemp("schemathesis")
    env = environment(
        kafka.bootstrap,
        folder,
        webhook_secrets=SECRET,
        pay_tokens=TOKEN.reveal(),
        pay_amounts="major",
        ingest_port=free_port(),
    )
    with program("topics", env) as topics:
        assert topics.wait(60) == 0, topics.tail()
    with program("ingest", env) as ingress:
        wait_ingress(ingress)
        yield env
        assert ingress.process
        assert ingress.process.poll() is None, ingress.tail()
        assert "Traceback" not in ingress.log_file.read_text()


@pytest.fixture(scope="module")
def address(env: dict[str, str]) -> str:
    return f"http://127.0.0.1:{env['LEDGER_INGEST_PORT']}"


@pytest.fixture(scope="module")
def statuses() -> Iterator[Counter[int]]:
    """Count the answers to signed requests; more than ten must be 200, and more than ten 400."""
    counted: Counter[int] = Counter()
    yield counted
    assert not counted or (counted[200] > 10 and counted[400] > 10), counted


# This check would fail on right answers. A schema can't express that 1.0 is not an integer here,
# and a schema can't limit the number of bytes of an id.
NOT_FOR_SCHEMAS = [positive_data_acceptance]
# `tests/ingest/test_openapi.py` shows that ingress publishes this document.
document = describe(settings(pay_tokens=(TOKEN,), pay_amounts=PayAmounts.MAJOR))
schema = schemathesis.openapi.from_dict(document)


def without_signature() -> dict[str, object]:
    """Return a copy of the document that lacks the headers which ``Signed`` sets."""
    changed = copy.deepcopy(document)
    del changed["paths"][PATH]["post"]["parameters"]
    del changed["paths"][PAY_PATH]["post"]["security"]
    return changed


signed_schema = schemathesis.openapi.from_dict(without_signature())


@schema.parametrize()
@bounded
def test_generated_requests_are_answered_as_documented(case, address):
    answer = case.call(base_url=address, timeout=30)
    case.validate_response(answer, excluded_checks=NOT_FOR_SCHEMAS)


@signed_schema.parametrize()
@bounded
def test_generated_and_signed_requests_are_answered_as_documented(case, address, statuses):
    answer = case.call(base_url=address, auth=Signed(), timeout=30)
    case.validate_response(answer, excluded_checks=NOT_FOR_SCHEMAS)
    assert answer.status_code != 401
    if case.path == PATH and case.method == "POST":
        statuses[answer.status_code] += 1
