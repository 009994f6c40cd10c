"""The project lists every private name of a library that it uses.

Each name exists in the pinned version of its library, and only a few modules may use these names.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module, metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from structlog.testing import capture_logs

from runtime import internals
from runtime.internals import USED, MissingInternalError, check, has, log_versions, missing_at

ROOT = Path(__file__).parents[2]
PRODUCT = ("cli", "faults", "ingest", "ledger", "processors", "runtime")
PLACES = {place: names for places in USED.values() for place, names in places.items()}
NAMES = {name for names in PLACES.values() for name in names.split()}
LIBRARIES = {place.partition(":")[0].partition(".")[0] for place in PLACES}
# These private methods of the project are called on a different object of the same class.
OWN = {"_launch"}
# Only these modules may use, override or replace private names of a library.
MODULES = {
    "aiokafka": {"runtime/kafka/corrections.py", "runtime/kafka/internals.py"},
    "faust": {"processors/engine/internals.py"},
    "mode": {"processors/engine/internals.py"},
    "opentelemetry": {"runtime/tracing.py"},
    "uvicorn": {"ingest/connection.py"},
}

WITHOUT_A_NAME = """
import sys
from aiokafka.consumer.group_coordinator import GroupCoordinator
del GroupCoordinator._do_fetch_commit_offsets
from cli.main import main
sys.argv = ["plexy-ledger", "settings"]
main()
"""


parse = cache(ast.parse)


@cache
def sources() -> list[tuple[Path, str]]:
    files = [file for package in PRODUCT for file in sorted((ROOT / package).rglob("*.py"))]
    return [(file.relative_to(ROOT), file.read_text()) for file in files]


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in {"self", "cls"}


def private_names_on(text: str, marked: str) -> Iterator[str]:
    """Yield the private attributes that marked lines use, except attributes of `self` or `cls`."""
    lines = {number for number, line in enumerate(text.splitlines(), 1) if marked in line}
    for node in ast.walk(parse(text)):
        is_marked = isinstance(node, ast.Attribute) and node.end_lineno in lines
        if is_marked and is_private(node.attr) and not is_self(node.value):
            yield node.attr


def private_names_of(definition: ast.ClassDef) -> set[str]:
    """Return the private names that a class defines, or uses on its own instances."""
    nodes = list(ast.walk(definition))
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    defined = {node.name for node in nodes if isinstance(node, functions)}
    used = {node.attr for node in nodes if isinstance(node, ast.Attribute) and is_self(node.value)}
    return {name for name in defined | used if is_private(name)}


@cache
def overridden(path: Path, text: str) -> set[str]:
    """Return the private names that a file's classes share with their base classes in a library."""
    found = set()
    classes = [node for node in parse(text).body if isinstance(node, ast.ClassDef)]
    for definition in classes:
        module = import_module(".".join(path.with_suffix("").parts).removesuffix(".__init__"))
        owner = getattr(module, definition.name)
        for name in private_names_of(definition):
            if any(has(owner, name, library) for library in LIBRARIES):
                found.add(name)
    return found


def libraries_with(name: str) -> set[str]:
    """Return the libraries that have this private name according to the table."""
    having = {place for place, names in PLACES.items() if name in names.split()}
    return {place.partition(":")[0].partition(".")[0] for place in having}


def replaced(text: str) -> Iterator[tuple[str, str]]:
    """Yield each attribute that a module assigns to an imported name, with the name's library."""
    nodes = list(ast.walk(parse(text)))
    imported = {
        alias.asname or alias.name: str(node.module).partition(".")[0]
        for node in nodes
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    targets = [target for node in nodes if isinstance(node, ast.Assign) for target in node.targets]
    for target in targets:
        match target:
            case ast.Attribute(ast.Name(name), attribute) if imported.get(name) in MODULES:
                yield f"{name}.{attribute}", imported[name]


def uses() -> Iterator[tuple[str, str, set[str]]]:
    """Yield each module, a private name that the module uses, and the libraries with that name."""
    for path, text in sources():
        for name in overridden(path, text).union(private_names_on(text, "noqa: SLF001")) - OWN:
            yield str(path), name, libraries_with(name)
        for name, library in replaced(text):
            yield str(path), name, {library}


def test_private_names_of_a_library_are_used_only_in_the_listed_modules():
    elsewhere = {
        f"{path}: {name} of {' or '.join(sorted(libraries))}"
        for path, name, libraries in uses()
        if not any(path in MODULES.get(library, ()) for library in libraries)
    }
    assert elsewhere == set()


def test_each_listed_module_uses_private_names_of_the_library_that_it_is_listed_for():
    using = {(library, path) for path, _, libraries in uses() for library in libraries}
    listed = {(library, path) for library, paths in MODULES.items() for path in paths}
    assert listed - using == set()
    # The search works: it finds a replaced method and an overridden method.
    found = {(path, name) for path, name, _ in uses()}
    assert ("runtime/kafka/corrections.py", "AIOKafkaConnection.send") in found
    assert ("ingest/connection.py", "_start_asgi_task") in found


def test_every_private_name_that_the_linter_ignores_is_in_the_table():
    used = {
        f"{path}: {name}"
        for path, text in sources()
        for name in private_names_on(text, "noqa: SLF001")
        if name not in NAMES | OWN
    }
    assert used == set()


def test_every_private_name_that_a_class_shares_with_a_library_is_in_the_table():
    found = {f"{path}: {name}" for path, text in sources() for name in overridden(path, text)}
    assert {each for each in found if each.rpartition(" ")[2] not in NAMES} == set()
    # The search works: it finds an overridden method, and an attribute that a class only reads.
    assert "processors/engine/internals.py: _crash" in found
    assert "processors/engine/internals.py: _thread" in found


@pytest.mark.parametrize("place", PLACES)
def test_the_pinned_version_has_every_name(place):
    import_module(place.partition(":")[0])
    assert list(missing_at(place, PLACES[place])) == []


@pytest.mark.parametrize(
    "place", ["aiokafka.client:AIOKafkaClient", "aiokafka.client", "rocksdict:RdictIter"]
)
def test_a_name_that_the_library_lacks_is_reported_as_missing(place):
    import_module(place.partition(":")[0])
    assert list(missing_at(place, "_no_such_name")) == [f"{place}._no_such_name"]
    assert list(missing_at("aiokafka.client:NoSuchClass", "_x")) == ["aiokafka.client:NoSuchClass"]


def test_each_library_of_the_table_is_pinned_to_one_version():
    pins = {
        requirement.name: [(each.operator, each.version) for each in requirement.specifier]
        for requirement in map(Requirement, metadata.requires("plexy-ledger") or [])
    }
    expected = internals.expected()
    assert expected.keys() == USED.keys()
    assert {library: pins[library] for library in USED} == {
        library: [("==", version)] for library, version in expected.items()
    }


def test_a_missing_name_is_an_error_with_both_versions_and_the_remedy(monkeypatch):
    place = "aiokafka.client:AIOKafkaClient"
    monkeypatch.setattr(internals, "USED", {"aiokafka": {place: "_wait_on_metadata _gone"}})
    monkeypatch.setattr(internals, "_checked", set())
    monkeypatch.setattr(internals, "installed", lambda _library: "99.1")
    expected = internals.expected()["aiokafka"]
    with pytest.raises(MissingInternalError) as raised:
        check()
    assert str(raised.value) == (
        f"aiokafka 99.1 has no {place}._gone, which plexy-ledger uses; expected aiokafka "
        f"{expected}: {internals.REMEDY}"
    )


def test_a_module_that_is_not_imported_is_not_checked(monkeypatch):
    monkeypatch.setattr(internals, "USED", {"aiokafka": {"aiokafka.no_such_module": "_gone"}})
    check()
    assert "aiokafka.no_such_module" not in sys.modules


def test_a_command_reports_the_missing_name_without_a_traceback():
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_A_NAME],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("plexy-ledger: aiokafka ")
    assert "GroupCoordinator._do_fetch_commit_offsets" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(("found", "level"), [(None, "info"), ("99.1", "warning")])
def test_the_versions_are_logged_and_a_wrong_version_is_a_warning(monkeypatch, found, level):
    expected = internals.expected()
    if found:
        monkeypatch.setattr(internals, "installed", lambda _library: found)
    with capture_logs() as lines:
        log_versions()
    [line] = lines
    assert (line["event"], line["log_level"]) == ("libraries", level)
    assert line["expected"]["aiokafka"] == expected["aiokafka"]
    assert line["installed"]["aiokafka"] == (found or expected["aiokafka"])
    assert ("remedy" in line) == (level == "warning")
