"""docs/http.md lists ingress' errors correctly."""

import re
from pathlib import Path

from ingest.answers import STATUS

PAGE = (Path(__file__).parents[2] / "docs" / "http.md").read_text()


def test_the_page_lists_exactly_the_errors_of_ingress_with_their_statuses():
    section = PAGE.partition("\nIngress:\n")[2].partition("\nViews:\n")[0]
    rows = [line.split("|")[1:3] for line in section.splitlines() if re.match(r"\| \d{3} \|", line)]
    page = {code: int(status) for status, codes in rows for code in re.findall(r"`(\w+)`", codes)}
    assert page == dict(STATUS)
