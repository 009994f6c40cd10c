"""Traces are off unless asked for, and what can't be had is said at the start."""

import os
import subprocess
import sys
from collections.abc import Mapping

import pytest
from opentelemetry.trace import SpanKind

from ingest.settings import IngestSettings
from processors.settings import WorkerSettings
from runtime import traces
from runtime.settings import SettingsError
from runtime.tracing import NO_CONTEXT, Tracing

ALL = {"LEDGER_WEBHOOK_SECRETS": "whsec_1", "LEDGER_DATA_DIR": ".", "LEDGER_TRACES": "otlp"}
KINDS = pytest.mark.parametrize("kind", [IngestSettings, WorkerSettings])


def run(code: str, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | env,
        capture_output=True,
        text=True,
        check=False,
    )


@KINDS
def test_without_the_extra_its_name_is_told(kind, monkeypatch):
    monkeypatch.setattr(traces, "find_spec", lambda _name: None)
    with pytest.raises(SettingsError, match=r"LEDGER_TRACES=otlp.*pip install '\.\[tracing\]'"):
        kind.from_environment(ALL)


@pytest.mark.parametrize("command", ["ingest", "worker"])
def test_a_program_without_opentelemetry_ends_with_that(command, tmp_path):
    code = (
        "import sys\n"
        "sys.modules['opentelemetry'] = None\n"
        f"sys.argv = ['plexy-ledger', {command!r}]\n"
        "from cli.main import main\n"
        "main()\n"
    )
    done = run(code, ALL | {"LEDGER_DATA_DIR": str(tmp_path)})
    assert done.returncode == 2
    assert "pip install '.[tracing]'" in done.stderr.replace("\n", "")
    assert "Traceback" not in done.stderr


@KINDS
def test_what_is_neither_off_nor_otlp_is_named(kind):
    with pytest.raises(SettingsError, match=r"LEDGER_TRACES: .*'jaeger'"):
        kind.from_environment(ALL | {"LEDGER_TRACES": "jaeger"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "collector"),
    ],
)
def test_what_opentelemetry_would_not_find_out_is_refused(name, value):
    with pytest.raises(SettingsError, match=f"{name}={value}: .*http"):
        Tracing("program", {name: value})


def test_a_queue_that_is_smaller_than_what_is_sent_of_it_is_refused(monkeypatch):
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "8")
    with pytest.raises(SettingsError, match=r"OpenTelemetry.*max_export_batch_size"):
        Tracing("program", {})


def test_opentelemetry_s_own_switch_is_heeded():
    for disabled in ("true", "false"):
        tracing = Tracing("program", {"OTEL_SDK_DISABLED": disabled})
        span = tracing.begin("span", SpanKind.SERVER, NO_CONTEXT)
        assert (span is None) == (disabled == "true")
        tracing.close()


@pytest.mark.parametrize("chosen", ["off", "otlp"])
def test_off_does_not_import_opentelemetry(chosen, tmp_path):
    """``otlp`` shows that it would be seen."""
    code = (
        "import os, sys\n"
        "import ingest.app, processors.app\n"
        "assert ingest.app.app.state.direct\n"
        "print(any(name.startswith('opentelemetry') for name in sys.modules))\n"
    )
    done = run(code, ALL | {"LEDGER_TRACES": chosen, "LEDGER_DATA_DIR": str(tmp_path)})
    assert (done.returncode, done.stdout) == (0, f"{chosen == 'otlp'}\n"), done.stderr
