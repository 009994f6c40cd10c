"""docs/http-api.md says of the HTTP interfaces what they are: paths, codes, fields, ports."""

import re
from pathlib import Path

import pytest

from ingest.answers import STATUS
from ingest.openapi import describe
from ingest.settings import IngestSettings

PAGE = (Path(__file__).parents[2] / "docs" / "http-api.md").read_text().partition("## Views")[0]


@pytest.mark.parametrize("code", STATUS)
def test_every_answer_of_ingress_stands_beside_its_status(code):
    rows = [line for line in PAGE.splitlines() if line.startswith(f"| {STATUS[code]} |")]
    assert any(f"`{code}`" in row for row in rows)


def test_no_answer_is_named_that_ingress_does_not_give():
    rows = [line.split("|")[1:3] for line in PAGE.splitlines() if re.match(r"\| \d{3} \|", line)]
    told = {code: int(status) for status, codes in rows for code in re.findall(r"`(\w+)`", codes)}
    assert told == dict(STATUS)


def test_every_path_of_ingress_is_named():
    document = describe(IngestSettings.from_environment({"LEDGER_WEBHOOK_SECRETS": "whsec_x"}))
    for path, methods in document["paths"].items():
        assert all(f"| `{method.upper()} {path}` |" in PAGE for method in methods)
