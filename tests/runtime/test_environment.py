"""Programs ignore the variables of libraries, and print UTF-8 in any locale."""

import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from runtime.environment import is_foreign

# Faust's own function looks for each name with the prefix `F_` or `FAUST_`.
_READS = re.compile(
    r"""os\.environ(?:\.get)?[\[(]\s*["'](\w+)|["'](\w+)["'] (?:not )?in os\.environ|"""
    r"""env\.get\(["'](\w+)|(?<!def )_getenv\(["'](\w+)"""
)
# These variables are kept on purpose. Some of them set the look of text or the machine's
# certificates. The others are read only by a library's examples or by other programs.
_KEPT = {
    "aiohttp": {"FOO", "NETRC", "PYTHONASYNCIODEBUG"},
    "faust": {"BROKER_PASSWORD", "BROKER_USERNAME", "SHELL"},
    "httpx": {"SSL_CERT_DIR", "SSL_CERT_FILE"},
    "mode": {"GEVENT_LOOP"},
    "structlog": {"FORCE_COLOR", "NO_COLOR"},
}


def names_read_by(library: str) -> set[str]:
    """Return the names of the environment variables that a library's source reads."""
    (folder,) = import_module(library).__path__
    found = set()
    for file in Path(folder).rglob("*.py"):
        for *names, of_faust in _READS.findall(file.read_text()):
            found |= {f"F_{of_faust}"} if of_faust else {name for name in names if name}
    return found


@pytest.mark.parametrize(
    "library",
    [
        "aiohttp",
        "aiokafka",
        "faust",
        "httpx",
        "mode",
        "prometheus_client",
        "starlette",
        "structlog",
        "uvicorn",
    ],
)
def test_each_variable_that_a_library_reads_is_ignored_or_kept_on_purpose(library):
    kept = {name for name in names_read_by(library) if not is_foreign(name)}
    assert kept == _KEPT.get(library, set())


def test_the_variables_of_the_ledger_and_opentelemetry_and_the_system_are_kept():
    kept = {"LEDGER_WEB_PORT", "OTEL_EXPORTER_OTLP_ENDPOINT", "PATH", "HOME", "TZ", "HTTPS_PROXY"}
    assert not any(map(is_foreign, kept))


@pytest.mark.parametrize("locale", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C"}])
def test_a_table_with_non_ascii_letters_is_printed_in_utf_8_in_any_locale(locale):
    done = subprocess.run(
        [sys.executable, "-m", "cli", "settings"],
        env=os.environ | locale | {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "…" in done.stdout.decode()
