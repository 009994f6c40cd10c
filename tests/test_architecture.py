"""The path of a delivery in docs/architecture.md consists of modules of this repository."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
PATH = re.findall(r"^\d+\. `([\w/]+\.py)` (.+)$", PAGE, re.MULTILINE)


def test_the_path_has_10_to_15_modules_and_each_module_has_one_sentence():
    assert 10 <= len(PATH) <= 15
    for module, sentence in PATH:
        assert (ROOT / module).is_file(), f"docs/architecture.md names {module}"
        assert re.fullmatch(r"[^.]+(\.(?=\w)[^.]+)*\.", sentence), f"{module}: {sentence}"


def test_every_agent_of_the_worker_is_on_the_path():
    agents = [
        file.relative_to(ROOT).as_posix()
        for file in sorted((ROOT / "processors").glob("*.py"))
        if re.search(r"\bapp\.add_hop\(", file.read_text())
    ]
    assert len(agents) == 3
    assert set(agents) <= {module for module, _ in PATH}


def test_the_path_lists_the_packages_in_the_order_in_which_a_delivery_passes_through_them():
    packages = [module.rpartition("/")[0] for module, _ in PATH]
    assert list(dict.fromkeys(packages)) == [
        "ingest",
        "runtime/kafka",
        "processors/engine",
        "processors",
        "ledger",
        "processors/views",
    ]
