"""The wheel has every file, and works in an environment without this checkout."""

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Mapping
from email import message_from_string
from email.message import Message
from pathlib import Path

import pytest

from runtime.kafka.topics import TopicSettings, ensure_topics
from tests.kafka.harness import deliver, environment, event, names_of
from tests.kafka.topics import alter

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
VERSION = PROJECT["project"]["version"]

pytestmark = pytest.mark.timeout(240)


def _run(
    command: list[object], cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> str:
    """Run a program to its end; return its standard output."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _build(source: Path, into: Path, *kinds: str) -> None:
    targets = [word for kind in kinds for word in ("--target", kind)]
    _run([sys.executable, "-m", "hatchling", "build", *targets, "--directory", into], cwd=source)


def _content(wheel: Path) -> dict[str, str]:
    """Return the SHA-256 of each package file in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
        return {name: hashlib.sha256(archive.read(name)).hexdigest() for name in names}


def _tree() -> dict[str, str]:
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("*")]
    return {
        str(file.relative_to(ROOT)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
        if file.is_file() and "__pycache__" not in file.parts
    }


def _metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(f"plexy_ledger-{VERSION}.dist-info/METADATA").decode()
        return message_from_string(text)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the wheel and the sdist of this tree."""
    folder = tmp_path_factory.mktemp("dist")
    _build(ROOT, folder, "sdist", "wheel")
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    return built / f"plexy_ledger-{VERSION}-py3-none-any.whl"


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create a Python environment; install the wheel and the locked versions of its libraries."""
    folder = tmp_path_factory.mktemp("elsewhere") / "environment"
    uv = Path(sys.executable).with_name("uv")
    python = folder / "bin" / "python"
    install = [uv, "pip", "install", "--quiet", "--python", python]
    lock = ROOT / "requirements" / "runtime.txt"
    _run([uv, "venv", "--quiet", "--python", sys.executable, folder])
    _run([*install, "--require-hashes", "--requirement", lock])
    _run([*install, "--no-deps", wheel])
    _run([uv, "pip", "check", "--quiet", "--python", python])
    return folder


def _plexy_ledger(installed: Path, folder: Path, *arguments: str, **settings: str) -> str:
    """Run the installed program in a folder; Python does not find this checkout on any path."""
    ours = ("LEDGER_", "PYTHON", "VIRTUAL_ENV")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    if cache := os.environ.get("LEDGER_KAFKA_CACHE"):
        kept["LEDGER_KAFKA_CACHE"] = cache
    kept["PATH"] = f"{installed / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return _run(["plexy-ledger", *arguments], cwd=folder, env=kept | settings)


def test_the_wheel_has_every_file_of_the_packages_and_nothing_else(wheel):
    tree = _tree()
    assert {"cli/demo/sample/deliveries.json", "ledger/py.typed"} <= set(tree)
    assert _content(wheel) == tree


def test_every_package_is_marked_as_typed(wheel):
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(_content(wheel))


def test_the_wheel_has_the_metadata_of_the_project(wheel):
    metadata = _metadata(wheel)
    assert (metadata["Name"], metadata["Version"]) == ("plexy-ledger", VERSION)
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Summary"]
    assert metadata["Keywords"]
    assert "Typing :: Typed" in metadata.get_all("Classifier")
    assert metadata.get_payload() == (ROOT / "README.md").read_text()


def test_the_libraries_for_traces_are_an_optional_extra_of_the_wheel(wheel):
    required = _metadata(wheel).get_all("Requires-Dist")
    tracing = [each for each in required if "opentelemetry" in each]
    assert tracing
    assert all(each.endswith("; extra == 'tracing'") for each in tracing)


def test_the_sdist_is_enough_to_build_the_same_wheel(built, wheel, tmp_path):
    name = f"plexy_ledger-{VERSION}"
    with tarfile.open(built / f"{name}.tar.gz") as archive:
        names = {Path(each).parts[1] for each in archive.getnames()}
        archive.extractall(tmp_path)  # noqa: S202 - built a moment ago
    needed = {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "requirements"}
    assert names - {"PKG-INFO", ".gitignore"} == {*PACKAGES, *needed}
    _build(tmp_path / name, tmp_path, "wheel")
    assert _content(tmp_path / wheel.name) == _content(wheel)
    assert _metadata(tmp_path / wheel.name).items() == _metadata(wheel).items()


def test_the_new_environment_imports_only_packages_that_are_installed_in_it(installed, tmp_path):
    code = (
        "import importlib, json, pkgutil, sys\n"
        f"packages = [importlib.import_module(name) for name in {PACKAGES!r}]\n"
        "print(json.dumps([package.__file__ for package in packages]))\n"
    )
    files = json.loads(_run([installed / "bin" / "python", "-I", "-c", code], cwd=tmp_path))
    assert all(Path(file).is_relative_to(installed) for file in files), files


def test_the_installed_program_shows_its_version_and_its_commands(installed, tmp_path):
    assert _plexy_ledger(installed, tmp_path, "version").split()[:2] == ["plexy-ledger", VERSION]
    assert "demo" in _plexy_ledger(installed, tmp_path, "--help")


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_the_installed_program_reads_a_log_that_is_compressed_with_any_codec(
    installed, kafka, tmp_path, codec
):
    env = environment(kafka.bootstrap, tmp_path)
    asyncio.run(ensure_topics(TopicSettings.from_environment(env)))
    asyncio.run(alter(env, names_of(env).webhooks, compression_type=codec))
    deliver(env, map(event, range(20)))
    said = _plexy_ledger(installed, tmp_path, "export-log", "log", **env)
    assert "20 in " in said


@pytest.mark.usefixtures("kafka_cache")
def test_the_installed_program_runs_the_demo_next_to_folders_named_like_its_packages(
    installed, tmp_path
):
    for package in PACKAGES:
        shutil.copytree(ROOT / "cli" / "demo" / "sample", tmp_path / package)
    assert "As expected: " in _plexy_ledger(installed, tmp_path, "demo")
