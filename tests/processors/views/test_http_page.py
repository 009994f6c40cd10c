"""docs/http.md lists every error of the views."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "http.md").read_text()
FILES = [*(ROOT / "processors" / "views").glob("*.py"), ROOT / "runtime" / "access.py"]
VIEWS = "".join(file.read_text() for file in FILES)


def test_every_error_of_a_view_is_listed_with_its_status():
    section = PAGE.partition("\nViews:\n")[2]
    raised = re.findall(
        r'(?:ProblemError\(|Problem\(status=)\s*(\d{3}),\s*(?:code=)?"(\w+)"', VIEWS
    )
    assert len(raised) >= 10
    for status, code in raised:
        assert re.search(rf"^\| {status} \|.*`{code}`", section, re.MULTILINE), code
