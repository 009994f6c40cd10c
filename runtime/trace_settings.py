"""Whether a program traces: the setting, which asks nothing of OpenTelemetry itself.

In: ``LEDGER_TRACES``. Out: a checked choice. Never: an import of OpenTelemetry; ``runtime.tracing``
does that, and only programs that trace import it.
"""

from importlib.util import find_spec
from typing import Annotated, Final, Literal

from runtime.settings import SettingsError, setting

Traces = Annotated[
    Literal["off", "otlp"],
    setting(
        "`otlp` sends spans to an OpenTelemetry receiver; where to and how many say "
        "OpenTelemetry's own variables, such as `OTEL_EXPORTER_OTLP_ENDPOINT` and "
        "`OTEL_TRACES_SAMPLER`"
    ),
]

# The header of a record, as of a request, that names its trace (W3C Trace Context).
TRACEPARENT: Final = "traceparent"


def check_traces(traces: Traces) -> None:
    """Raise ``SettingsError`` if traces are asked for where what makes them is not installed."""
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
            f"LEDGER_TRACES={traces} takes the extra `tracing`: "
            "pip install '.[tracing]' in a checkout, or unset it"
        )
