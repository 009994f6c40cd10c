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
# These variables are left on purpose: they decide how text looks, and where the machine's trust
# and proxies are, or only examples and other programs read them.
_LEFT = {
    "aiohttp": {"FOO", "NETRC", "PYTHONASYNCIODEBUG"},
    "faust": {"BROKER_PASSWORD", "BROKER_USERNAME", "SHELL"},
    "httpx": {"SSL_CERT_DIR", "SSL_CERT_FILE"},
    "mode": {"GEVENT_LOOP"},
    "structlog": {"FORCE_COLOR", "NO_COLOR"},
}


def names_read_by(library: str) -> set[str]:
    """Return the names of the environment variables in a library's source."""
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
def test_each_variable_that_a_library_reads_is_ignored_or_left_on_purpose(library):
    left = {name for name in names_read_by(library) if not is_foreign(name)}
    assert left == _LEFT.get(library, set())


def test_the_variables_of_ours_of_opentelemetry_and_of_the_system_are_left():
    ours = {"LEDGER_WEB_PORT", "OTEL_EXPORTER_OTLP_ENDPOINT", "PATH", "HOME", "TZ", "HTTPS_PROXY"}
    assert not any(map(is_foreign, ours))


@pytest.mark.parametrize("locale", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C"}])
def test_a_table_with_other_letters_than_ascii_s_is_printed_in_utf_8_in_any_locale(locale):
    done = subprocess.run(
        [sys.executable, "-m", "cli", "settings"],
        env=os.environ | locale | {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "…" in done.stdout.decode()
