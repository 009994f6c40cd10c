"""Sends spans to an OpenTelemetry receiver, over OTLP/HTTP.

Input: OpenTelemetry's own environment variables, which name the receiver, the sampler and the
program. Output: a ``Tracing``, which sends spans from its own thread. Invariant: a running program
never waits for the receiver. The queue of spans is bounded; if it is full, spans are dropped, and a
log line reports how many.

Import this module only if ``LEDGER_TRACES`` is on, because OpenTelemetry costs time and memory.
"""

import logging
import os
import re
import threading
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Final
from urllib.parse import unquote

import structlog
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Decision
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    Link,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    get_current_span,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from runtime import internals
from runtime.settings import SettingsError
from runtime.trace_settings import TRACEPARENT

internals.check()

log = structlog.get_logger(__name__)

# The time limit for sending the last spans when a program ends.
_FLUSHED_WITHIN_S: Final = 1.0
_LOGGED_AGAIN_AFTER_S: Final = 60.0
_PROTOCOL: Final = "http/protobuf"
_SENDING: Final = "opentelemetry.exporter.otlp.proto.http.trace_exporter"

# OpenTelemetry's own samplers, the default first.
_SAMPLERS: Final = (
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
    "always_on",
    "always_off",
    "traceidratio",
)
_URL: Final = re.compile(r"https?://([^/?#]*@)?[^/?#@]+([/?#].*)?")
# The pattern of a header in ``opentelemetry.util.re``. That module logs a header that does not
# match, and the header may contain a secret.
_HEADER: Final = re.compile(
    r"[\w!#$%&'*+.^`|~-]+ *= *[\x20\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]*", re.ASCII
)

_UNSET: Final = Status(StatusCode.UNSET)
_ERROR: Final = Status(StatusCode.ERROR)
NO_CONTEXT: Final = Context()
_NO_SPAN: Final = get_current_span(NO_CONTEXT).get_span_context()
_W3C: Final = TraceContextTextMapPropagator()


class Tracing:
    """A program's tracer, with a queue and a thread for its spans; create it after any fork."""

    def __init__(self, program: str, environment: Mapping[str, str] = os.environ) -> None:
        """Start the thread; raise ``SettingsError`` if an OpenTelemetry variable is not valid."""
        _check(environment)
        disabled = environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
        try:
            self._provider = TracerProvider(
                sampler=ALWAYS_OFF if disabled else None,
                resource=_resource(program),
                shutdown_on_exit=False,
            )
            self._exporter = OTLPSpanExporter()
            self._waiting = BatchSpanProcessor(self._exporter)
        except ValueError as error:
            raise SettingsError(f"one of OpenTelemetry's variables is not valid: {error}") from None
        self._provider.add_span_processor(self._waiting)
        self._queue = self._waiting._batch_processor._queue  # noqa: SLF001
        self._dropped = 0
        self._logged_dropped_s = -_LOGGED_AGAIN_AFTER_S
        self._scope = InstrumentationScope("plexy-ledger", version("plexy-ledger"))
        sending = logging.getLogger(_SENDING)
        if not any(isinstance(each, _SeldomLogged) for each in sending.filters):
            sending.addFilter(_SeldomLogged())

    def begin(self, name: str, kind: SpanKind, parent: Context) -> SpanContext | None:
        """Return the ids of a new span; ``None`` if it is not sampled, or if the queue is full."""
        ids = self._provider.id_generator
        above = _NO_SPAN if parent is NO_CONTEXT else span_context_of(parent)
        is_part = above.is_valid
        trace_id = above.trace_id if is_part else ids.generate_trace_id()
        sampled = self._provider.sampler.should_sample(parent, trace_id, name, kind)
        if sampled.decision is not Decision.RECORD_AND_SAMPLE:
            return None
        if self._is_full():
            self._drop()
            return None
        flags = above.trace_flags if is_part else TraceFlags.RANDOM_TRACE_ID
        return SpanContext(
            trace_id,
            ids.generate_span_id(),
            is_remote=False,
            trace_flags=TraceFlags(flags | TraceFlags.SAMPLED),
            trace_state=sampled.trace_state,
        )

    def end(  # noqa: PLR0913 - a span has all these parts
        self,
        name: str,
        kind: SpanKind,
        span: SpanContext,
        *,
        parent: Context,
        attributes: Mapping[str, str | int],
        times_ns: tuple[int, int],
        links: Sequence[SpanContext] = (),
        is_error: bool = False,
    ) -> None:
        """Queue a finished span, unless the queue is full by now.

        The span is created only here, at its end, when all its parts are known. A span that
        OpenTelemetry creates at the beginning takes a lock for each change, which costs three times
        as much.
        """
        if self._is_full():
            self._drop()
            return
        above = span_context_of(parent)
        self._waiting.on_end(
            ReadableSpan(
                name,
                context=span,
                parent=above if above.is_valid else None,
                resource=self._provider.resource,
                attributes=attributes,
                links=[Link(each) for each in links],
                kind=kind,
                status=_ERROR if is_error else _UNSET,
                start_time=times_ns[0],
                end_time=times_ns[1],
                instrumentation_scope=self._scope,
            )
        )

    def _is_full(self) -> bool:
        """Return whether the queue is full, so that the span is dropped here.

        If OpenTelemetry dropped the span, it would log each dropped span.
        """
        return len(self._queue) == self._queue.maxlen

    def _drop(self) -> None:
        self._dropped += 1
        now_s = time.monotonic()
        if now_s - self._logged_dropped_s >= _LOGGED_AGAIN_AFTER_S:
            self._logged_dropped_s = now_s
            log.warning("spans_dropped", so_far=self._dropped)

    def close(self) -> None:
        """Send the queued spans; block for at most a second, and drop the remaining spans."""
        # OpenTelemetry's own ``shutdown`` waits 30 s for a receiver that does not answer.
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(_FLUSHED_WITHIN_S)
        if closing.is_alive():
            self._exporter.shutdown()  # type: ignore[no-untyped-call]


def context_of(traceparent: bytes) -> Context:
    """Return the context that a header names; for an invalid header, the context has no span."""
    return _W3C.extract({TRACEPARENT: traceparent.decode("latin-1")}, Context())


def span_context_of(context: Context) -> SpanContext:
    """Return the span that a context names; ``is_valid`` is false if no span is named."""
    return get_current_span(context).get_span_context()


def traceparent_of(span: SpanContext) -> bytes:
    """Return the header that names a span.

    >>> traceparent_of(SpanContext(0xA, 0xB, is_remote=False))
    b'00-0000000000000000000000000000000a-000000000000000b-00'
    """
    return b"00-%032x-%016x-%02x" % (span.trace_id, span.span_id, span.trace_flags)


def _resource(program: str) -> Resource:
    """Return the resource that spans name as their source; environment variables override it."""
    given = OTELResourceDetector().detect().attributes
    ours = {"service.name": program, "service.version": version("plexy-ledger")}
    return Resource.create({**ours, **given})


def _check(environment: Mapping[str, str]) -> None:
    """Refuse invalid values that OpenTelemetry would notice only at each span, or never.

    An endpoint or a header may contain a password. So no message here contains an endpoint or a
    header, and this function refuses every value that OpenTelemetry would log.
    """
    for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        protocol = environment.get(name, "") or _PROTOCOL
        if protocol != _PROTOCOL:
            raise SettingsError(
                f"{name}={protocol}: traces are sent as {_PROTOCOL} only; unset {name}, and name "
                "the receiver's port for HTTP (usually 4318) in OTEL_EXPORTER_OTLP_ENDPOINT"
            )
    for name in ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"):
        endpoint = environment.get(name, "")
        if endpoint and not _URL.fullmatch(endpoint):
            raise SettingsError(f"{name}: expected a URL such as http://127.0.0.1:4318")
    for name in ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"):
        if not all(map(_is_header, environment.get(name, "").split(","))):
            raise SettingsError(
                f"{name}: expected name=value,name=value with percent-encoded values, "
                "such as authorization=Bearer%20…"
            )
    _check_sampler(environment)


def _is_header(text: str) -> bool:
    """Return whether a header is empty, or valid for both OpenTelemetry and HTTP."""
    text = text.strip(" \t")
    return not text or (_HEADER.fullmatch(text) is not None and unquote(text).isprintable())


def _check_sampler(environment: Mapping[str, str]) -> None:
    """Refuse unknown samplers; OpenTelemetry would only log a warning, and trace everything."""
    sampler = environment.get("OTEL_TRACES_SAMPLER", "") or _SAMPLERS[0]
    if sampler.lower() not in _SAMPLERS:
        raise SettingsError(
            f"OTEL_TRACES_SAMPLER={sampler}: expected one of {', '.join(_SAMPLERS)}"
        )
    share = environment.get("OTEL_TRACES_SAMPLER_ARG", "") or "1"
    if sampler.lower().endswith("traceidratio") and not _is_share(share):
        raise SettingsError(
            f"OTEL_TRACES_SAMPLER_ARG={share}: expected the share of the traces that {sampler} "
            "takes, from 0 to 1"
        )


def _is_share(text: str) -> bool:
    try:
        return 0 <= float(text) <= 1
    except ValueError:
        return False


class _SeldomLogged(logging.Filter):
    """Passes each kind of line at most once a minute: every attempt to send may log a line."""

    def __init__(self) -> None:
        super().__init__()
        self._logged_at: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a line passes; a line's kind is its text without the arguments."""
        now = time.monotonic()
        kind = str(record.msg)
        if now - self._logged_at.get(kind, -_LOGGED_AGAIN_AFTER_S) < _LOGGED_AGAIN_AFTER_S:
            return False
        self._logged_at[kind] = now
        return True
