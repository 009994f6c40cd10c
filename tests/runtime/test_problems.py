"""Problem documents have the form of RFC 9457, and have only the members that are documented."""

import json
from http import HTTPStatus

import pytest

from runtime.problems import MEDIA_TYPE, Problem


def decoded(**fields: object) -> dict:
    return json.loads(Problem(**{"status": 404, "code": "c", "detail": "d", **fields}).encode())


def test_a_document_has_a_status_and_a_code_and_a_detail_and_the_title_of_the_status():
    assert decoded(status=503, code="not_ready", detail="wait") == {
        "status": 503,
        "code": "not_ready",
        "detail": "wait",
        "title": "Service Unavailable",
    }


@pytest.mark.parametrize("status", [400, 401, 404, 405, 413, 500, 503])
def test_every_status_has_a_title(status):
    assert decoded(status=status)["title"] == HTTPStatus(status).phrase


def test_an_explicit_title_is_kept():
    assert decoded(title="Slow down")["title"] == "Slow down"


def test_the_name_of_the_field_that_is_wrong_is_optional():
    assert decoded(field="data.amount")["field"] == "data.amount"
    assert "field" not in decoded()


def test_a_detail_may_be_any_text():
    assert decoded(detail='№ "7"\n')["detail"] == '№ "7"\n'


def test_encoding_does_not_change_a_problem():
    problem = Problem(status=404, code="c", detail="d")
    problem.encode()
    assert problem == Problem(status=404, code="c", detail="d")
    with pytest.raises(AttributeError):
        problem.status = 500


def test_the_media_type_is_the_media_type_of_the_rfc():
    assert MEDIA_TYPE == "application/problem+json"
