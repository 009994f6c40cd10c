"""The files and tests that the README and the docs name exist, and the docs name every command."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"


def test_every_link_leads_to_a_file() -> None:
    pages = [README, *(ROOT / "docs").rglob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"


def test_the_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= 120


def test_the_page_of_commands_names_every_command() -> None:
    command = [sys.executable, "-m", "cli", "--help"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    commands = re.findall(r"^  ([\w-]+)  ", printed.split("Commands:")[1], re.MULTILINE)
    assert len(commands) >= 9
    page = (ROOT / "docs" / "commands.md").read_text()
    assert all(f"`{name}`" in page for name in commands)


def test_every_test_that_a_page_names_exists() -> None:
    tests = "".join(file.read_text() for file in (ROOT / "tests").rglob("test_*.py"))
    for page in [README, *(ROOT / "docs").rglob("*.md")]:
        for name in re.findall(r"`(test_\w+|Test\w+)`", page.read_text()):
            assert re.search(rf"(?:def|class) {name}\b", tests), f"{page.name} names {name}"
