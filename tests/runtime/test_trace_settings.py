"""Traces are off by default, and wrong settings end a program at its start."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping

import pytest
from opentelemetry.trace import SpanContext, SpanKind

from ingest.settings import IngestSettings
from processors.settings import WorkerSettings
from runtime import trace_settings as traces
from runtime.settings import SettingsError
from runtime.tracing import NO_CONTEXT, Tracing
from tests.otlp import receiving

ALL = {
    "LEDGER_WEBHOOK_SECRETS": "whsec_test_key_1",
    "LEDGER_DATA_DIR": ".",
    "LEDGER_TRACES": "otlp",
}
KINDS = pytest.mark.parametrize("kind", [IngestSettings, WorkerSettings])


def run(code: str, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | env,
        capture_output=True,
        text=True,
        check=False,
    )


def end(tracing: Tracing, span: SpanContext | None) -> None:
    assert span is not None
    tracing.end(
        "span", SpanKind.SERVER, span, parent=NO_CONTEXT, attributes={}, times_ns=(1000, 2000)
    )


@KINDS
def test_the_error_names_the_extra_tracing_if_this_extra_is_not_installed(kind, monkeypatch):
    monkeypatch.setattr(traces, "find_spec", lambda _name: None)
    with pytest.raises(SettingsError, match=r"LEDGER_TRACES=otlp.*pip install '\.\[tracing\]'"):
        kind.from_environment(ALL)


@pytest.mark.parametrize("command", ["ingest", "worker"])
def test_a_program_without_opentelemetry_ends_with_an_error_that_names_the_extra(command, tmp_path):
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
def test_a_value_other_than_off_or_otlp_is_refused(kind):
    with pytest.raises(SettingsError, match=r"LEDGER_TRACES: .*'jaeger'"):
        kind.from_environment(ALL | {"LEDGER_TRACES": "jaeger"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"),
        ("OTEL_TRACES_SAMPLER", "nonsense"),
        ("OTEL_TRACES_SAMPLER", "always_on "),
    ],
)
def test_a_value_that_opentelemetry_itself_would_ignore_is_refused(name, value):
    with pytest.raises(SettingsError, match=f"{name}={value}: .*(http|parentbased_traceidratio)"):
        Tracing("program", {name: value})


@pytest.mark.parametrize("share", ["all", "1.01", "-0.1", "nan", "1%"])
@pytest.mark.parametrize("sampler", ["traceidratio", "ParentBased_TraceIdRatio"])
def test_an_invalid_share_of_traces_is_refused_if_the_sampler_needs_a_share(sampler, share):
    given = {"OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": share}
    with pytest.raises(SettingsError, match=f"OTEL_TRACES_SAMPLER_ARG={share}: .* from 0 to 1"):
        Tracing("program", given)
    Tracing("program", given | {"OTEL_TRACES_SAMPLER": "always_on"}).close()


@pytest.mark.parametrize("empty_is_unset", [{}, {"OTEL_TRACES_SAMPLER_ARG": ""}])
@pytest.mark.parametrize("sampler", ["", "Always_Off", "traceidratio"])
def test_a_sampler_of_opentelemetry_is_accepted_without_an_argument(sampler, empty_is_unset):
    Tracing("program", {"OTEL_TRACES_SAMPLER": sampler} | empty_is_unset).close()


@pytest.mark.parametrize("of", ["OTEL_EXPORTER_OTLP_", "OTEL_EXPORTER_OTLP_TRACES_"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ENDPOINT", "user:hush@collector:4318"),
        ("ENDPOINT", "collector/hush"),
        ("ENDPOINT", "http://user:hush@/v1/traces"),
        ("ENDPOINT", "http:///hush"),
        ("HEADERS", "Authorization: Bearer hush"),
        ("HEADERS", "Authorization: Basic hush=="),
        ("HEADERS", '"authorization=hush"'),
        ("HEADERS", "authorization=a;hush"),
        ("HEADERS", "x=1,hush"),
        ("HEADERS", "x=1,=hush"),
        ("HEADERS", "authorization=Bearer%0Ahush"),
        ("HEADERS", "authorization=Bearer\nhush"),
        ("HEADERS", "authorization=\xfchush"),
    ],
)
def test_the_error_for_a_wrong_value_does_not_contain_the_password_in_the_value(
    of, name, value, monkeypatch, caplog
):
    monkeypatch.setenv(of + name, value)
    with pytest.raises(SettingsError, match=f"^{of}{name}: expected .*(http://|name=value)") as got:
        Tracing("program", {of + name: value})
    assert "hush" not in f"{got.value}{caplog.text}"


@pytest.mark.parametrize("program", ["ingest", "processors"])
def test_a_program_does_not_show_an_invalid_header(program, tmp_path):
    wrong = {"OTEL_EXPORTER_OTLP_HEADERS": "Authorization: Bearer hush"}
    done = run(f"from {program}.app import app", ALL | {"LEDGER_DATA_DIR": str(tmp_path)} | wrong)
    assert done.returncode == 1
    assert "can't start: OTEL_EXPORTER_OTLP_HEADERS: expected" in done.stderr
    assert "hush" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("headers", "sent"),
    [
        ("Authorization=Bearer%20hush==,x-scope = 1", {"authorization": "Bearer hush=="}),
        (", authorization=Bearer hush ,x-scope=1,", {"authorization": "Bearer hush"}),
        ("x-scope=1", {}),
    ],
)
def test_headers_are_sent_as_configured(headers, sent, monkeypatch, caplog):
    with receiving() as receiver:
        given = receiver.environment | {"OTEL_EXPORTER_OTLP_HEADERS": headers}
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        tracing = Tracing("program", given)
        end(tracing, tracing.begin("span", SpanKind.SERVER, NO_CONTEXT))
        tracing.close()
        expected = sent | {"x-scope": "1"}
        assert {name: receiver.headers[name] for name in expected} == expected
    assert caplog.text == ""


def test_an_invalid_number_is_refused(monkeypatch):
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "abc")
    with pytest.raises(SettingsError, match=r"OpenTelemetry.*OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT.*abc"):
        Tracing("program", {})


def test_a_queue_smaller_than_a_batch_is_refused(monkeypatch):
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "8")
    with pytest.raises(SettingsError, match=r"OpenTelemetry.*max_export_batch_size"):
        Tracing("program", {})


def test_the_variable_otel_sdk_disabled_turns_traces_off():
    for disabled in ("true", "false"):
        tracing = Tracing("program", {"OTEL_SDK_DISABLED": disabled})
        span = tracing.begin("span", SpanKind.SERVER, NO_CONTEXT)
        assert (span is None) == (disabled == "true")
        tracing.close()


def test_each_span_arrives_or_is_counted_as_dropped(monkeypatch, capsys, caplog):
    """All spans begin before the first span ends, as if Kafka were slow."""
    monkeypatch.setattr("runtime.tracing._LOGGED_AGAIN_AFTER_S", 0)
    with receiving() as receiver:
        small = {"OTEL_BSP_MAX_QUEUE_SIZE": "8", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "8"}
        for name, value in (receiver.environment | small).items():
            monkeypatch.setenv(name, value)
        tracing = Tracing("program")
        begun = [tracing.begin("span", SpanKind.SERVER, NO_CONTEXT) for _ in range(1000)]
        for span in begun:
            end(tracing, span)
        tracing.close()
    dropped = [
        int(n)
        for n in re.findall(
            r"spans_dropped\W.*?so_far\W+(\d+)", re.sub(r"\x1b\[\d*m", "", capsys.readouterr().out)
        )
    ]
    assert dropped == list(range(1, 1001 - len(receiver.spans)))
    assert dropped
    # OpenTelemetry's own log line for each dropped span is suppressed.
    assert caplog.text == ""


@pytest.mark.parametrize("chosen", ["off", "otlp"])
def test_opentelemetry_is_not_imported_if_traces_are_off(chosen, tmp_path):
    """The case ``otlp`` shows that the test detects an import."""
    code = (
        "import os, sys\n"
        "import ingest.app, processors.app\n"
        "assert ingest.app.app.state.direct\n"
        "print(any(name.startswith('opentelemetry') for name in sys.modules))\n"
    )
    done = run(code, ALL | {"LEDGER_TRACES": chosen, "LEDGER_DATA_DIR": str(tmp_path)})
    assert (done.returncode, done.stdout) == (0, f"{chosen == 'otlp'}\n"), done.stderr
