"""Defines the setting that switches traces on.

Only ``runtime.tracing`` and the two modules named ``spans`` import OpenTelemetry. Only a program
that sends traces imports these three modules.
"""

from importlib.util import find_spec
from typing import Annotated, Final, Literal

from runtime.settings import SettingsError, setting

Traces = Annotated[
    Literal["off", "otlp"],
    setting(
        "`otlp` sends spans to an OpenTelemetry receiver; OpenTelemetry's own variables, such as "
        "`OTEL_EXPORTER_OTLP_ENDPOINT` and `OTEL_TRACES_SAMPLER`, set the receiver and the sampler"
    ),
]

# The header that names the trace of a record or of a request (W3C Trace Context).
TRACEPARENT: Final = "traceparent"


def check_traces(traces: Traces) -> None:
    """Raise ``SettingsError`` if traces are on and OpenTelemetry is not installed."""
    if traces == "off":
        return
    try:
        found = find_spec("opentelemetry.sdk") and find_spec(
            "opentelemetry.exporter.otlp.proto.http"
        )
    except ModuleNotFoundError:
        found = None
    if not found:
        raise SettingsError(
            f"LEDGER_TRACES={traces} needs the extra `tracing`: "
            "pip install '.[tracing]' in a checkout, or unset LEDGER_TRACES"
        )
