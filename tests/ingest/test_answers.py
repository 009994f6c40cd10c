"""Every error code has an HTTP status, and every answer has the headers that its status needs."""

import json

import pytest

from ingest.answers import STATUS, problem
from ledger.rejections import Reason
from ledger.signature import SignatureFault


@pytest.mark.parametrize(("code", "status"), list(STATUS.items()))
def test_a_problem_document_follows_rfc_9457(code, status):
    answer = problem(code, "what happened", field="data.amount")
    document = json.loads(answer.body)
    assert answer.status_code == document["status"] == status
    assert document["title"]
    assert (document["code"], document["detail"]) == (code, "what happened")
    assert document["field"] == "data.amount"


def test_every_fault_of_a_signature_has_a_status():
    assert {STATUS[fault] for fault in SignatureFault} == {401}


def test_every_fault_of_an_envelope_has_a_status():
    assert {STATUS[r] for r in (Reason.MALFORMED_JSON, Reason.INVALID_ENVELOPE)} == {400}


@pytest.mark.parametrize("code", ["log_unavailable", "overloaded"])
def test_a_temporary_problem_says_when_to_retry(code):
    assert int(problem(code, "").headers["retry-after"]) > 0


@pytest.mark.parametrize("code", ["request_timeout", "body_too_large"])
def test_an_answer_that_is_sent_before_the_whole_body_is_read_closes_the_connection(code):
    assert problem(code, "").headers["connection"] == "close"


def test_headers_can_be_added_to_a_problem_document():
    assert problem("method_not_allowed", "", headers={"Allow": "POST"}).headers["allow"] == "POST"
