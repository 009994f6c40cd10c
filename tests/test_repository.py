"""The repository keeps its rules for the contents of files, for scripts and for lock files."""

import ast
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
OURS = ("build.txt", "dev.txt", "runtime.txt")
LOCKS = (*OURS, "docs.txt", "quix.txt")

# The names are split, so that this file does not contain the names that it forbids.
_HOSTS = (
    ("pythonhosted", "org"),
    ("pypi", "org"),
    ("maven", "org"),
    ("maven", "apache", "org"),
    ("npmjs", "org"),
    ("npmjs", "com"),
    ("proxy", "golang", "org"),
    ("crates", "io"),
    ("debian", "org"),
)
REGISTRY = re.compile("|".join(rf"\b{re.escape('.'.join(host))}\b" for host in _HOSTS))
# This pattern finds home folders, and the working folder on the developers' machines.
MACHINE = re.compile(r"(?<![\w.~}-])/(?:home/[a-z]|Users/[A-Za-z]|root/|work/)")


@cache
def files() -> dict[str, Path]:
    """Return every file that git tracks, or would track, by its name."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("only git can list the project's files; this needs git and a checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],  # noqa: S607
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\0")
    return {name: ROOT / name for name in listed if name and (ROOT / name).is_file()}


def lines_with(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{name}:{number}: {line.strip():.100}"
        for name, path in files().items()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if pattern.search(line)
    ]


def shebang(path: Path) -> str:
    with path.open("rb") as file:
        start = file.readline(200).decode(errors="replace")
    return start.strip() if start.startswith("#!") else ""


def scripts() -> dict[str, Path]:
    found = {name: path for name, path in files().items() if "sh" in shebang(path)}
    return found | {name: path for name, path in files().items() if name.endswith(".sh")}


def locked(lock: str) -> dict[str, tuple[str, list[str]]]:
    """Read a lock file; return the version and the hashes of each requirement by its name."""
    text = (ROOT / "requirements" / lock).read_text().replace("\\\n", " ")
    found = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            requirement, *hashes = re.split(r"\s--hash=", line)
            parsed = Requirement(requirement)
            found[canonicalize_name(parsed.name)] = (
                str(parsed.specifier),
                [each.strip() for each in hashes],
            )
    return found


def wanted(lock: str) -> list[Requirement]:
    """Read, from pyproject.toml, the requirements that a lock file must satisfy."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    build, runtime = project["build-system"]["requires"], project["project"]["dependencies"]
    # The image includes the packages for traces.
    runtime = runtime + project["project"]["optional-dependencies"]["tracing"]
    groups = project["dependency-groups"]
    asked = {
        "build.txt": build,
        "runtime.txt": runtime,
        "dev.txt": runtime + groups["dev"],
        "docs.txt": groups["docs"],
        "quix.txt": groups["quix"],
    }
    return [Requirement(text) for text in asked[lock]]


def test_the_patterns_find_their_examples():
    assert REGISTRY.search("https://files." + ".".join(_HOSTS[0]) + "/packages")
    assert MACHINE.search('open("/' + 'home/ann/x")')
    assert MACHINE.search("cd /" + "work/there")
    assert not MACHINE.search("https://example.com/" + "home/page")


def test_no_file_names_the_host_of_a_package_registry():
    assert lines_with(REGISTRY) == []


def test_no_file_names_a_folder_of_a_developers_machine():
    assert lines_with(MACHINE) == []


def test_git_would_track_no_file_of_secrets():
    assert ".env" not in files()


def test_no_leftover_of_a_merge_is_tracked():
    assert [name for name in files() if name.endswith((".orig", ".rej"))] == []


def imported(path: Path) -> Iterator[str]:
    """Yield each import of a module, with the full name of the imported module or object."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from (f"{module}.{each.name}" for each in node.names)


def test_no_test_module_is_imported():
    """Shared test code belongs in a module without tests, or in a fixture of a `conftest.py`."""
    found = [
        f"{name} imports {module}"
        for name, path in files().items()
        if name.startswith("tests/") and name.endswith(".py")
        for module in imported(path)
        if module.startswith((".", "tests.")) and ".test_" in module
    ]
    assert found == []


def test_a_shell_script_is_executable_and_names_its_shell():
    assert ".ci/run" in scripts()
    assert [name for name, path in scripts().items() if not os.access(path, os.X_OK)] == []
    assert [name for name, path in scripts().items() if not shebang(path)] == []


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_requirement_has_one_version_and_its_hashes(lock):
    for name, (version, hashes) in locked(lock).items():
        assert re.fullmatch(r"==[\w.!+-]+", version), name
        assert hashes, name
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", each) for each in hashes), name


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_does_not_name_the_source_of_its_packages(lock):
    text = (ROOT / "requirements" / lock).read_text()
    assert re.findall(r"(?m)^\s*(?!--hash=)-.*$|\S*://\S*|\S+ @ \S+", text) == []


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_satisfies_pyproject(lock):
    versions = locked(lock)
    for requirement in wanted(lock):
        version, _ = versions.get(canonicalize_name(requirement.name), ("", []))
        # Without a check of ``version``, an empty specifier would accept a missing package.
        fits = version and requirement.specifier.contains(version.removeprefix("=="))
        assert fits, f"{requirement} is not in {lock}, got {version!r}: run `make lock`"


def test_the_locks_agree_with_each_other():
    everything = locked("dev.txt")
    for lock in OURS:
        assert locked(lock).items() <= everything.items(), f"{lock} is not a part of dev.txt"
    # Both locks are installed into one environment.
    for name, version in locked("docs.txt").items():
        assert everything.get(name, version) == version, name


def test_the_licence_is_the_licence_that_pyproject_names():
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License\n                           Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["license"] == "Apache-2.0"
