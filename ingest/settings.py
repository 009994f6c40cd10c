"""Defines the settings of ingress; a start without any secret must be allowed explicitly."""

from typing import Annotated, Final

from ledger.signature import DEFAULT_TOLERANCE_S, SignedForm
from runtime.addresses import LOOPBACK, IngestHost, IngestMetricsHost, IngestMetricsPort, IngestPort
from runtime.kafka.connection import KafkaSettings
from runtime.logs import LogFormat, LogLevel
from runtime.settings import SettingsError, setting
from runtime.trace_settings import Traces, check_traces
from runtime.trust import (
    AllowUnsigned,
    Form,
    PayAmountsUnit,
    PayTokens,
    ToleranceSeconds,
    WebhookSecrets,
    check_secrets,
)

_MIB: Final = 1024 * 1024
WEBHOOKS_PATH: Final = "/webhooks/plexy"
PAY_PATH: Final = "/webhooks/plexy-pay"

# `ledger.topics.MAX_RECORD_BYTES` is larger, to leave room for a record's headers.
_LARGEST_BODY_BYTES: Final = 8 * _MIB
# Plexy stops waiting for an answer after 30 s. After SIGTERM, `ingest.server` also waits this long
# for the deliveries under way.
LONGEST_ANSWER_S: Final = 10


class IngestSettings(KafkaSettings, frozen=True, kw_only=True):
    """The settings of one ingress: its secrets, its addresses and its limits."""

    webhook_secrets: WebhookSecrets = ()
    allow_unsigned: AllowUnsigned = False
    signed_form: Form = SignedForm.EITHER
    signature_tolerance_s: ToleranceSeconds = DEFAULT_TOLERANCE_S
    pay_tokens: PayTokens = ()
    pay_amounts: PayAmountsUnit = None
    ingest_host: IngestHost = LOOPBACK
    ingest_port: IngestPort = 8000
    ingest_processes: Annotated[
        int,
        setting(
            "processes that receive webhooks on the same port, each with its own limits",
            ge=1,
            le=64,
        ),
    ] = 1
    ingest_metrics_host: IngestMetricsHost = LOOPBACK
    ingest_metrics_port: IngestMetricsPort = None
    max_body_bytes: Annotated[
        int, setting("largest body that is accepted, in bytes", ge=1, le=_LARGEST_BODY_BYTES)
    ] = _MIB
    max_in_flight: Annotated[
        int, setting("largest number of unanswered deliveries at a time", ge=1, le=100_000)
    ] = 1000
    answer_within_s: Annotated[
        float,
        setting(
            "every delivery is answered within this time, in seconds", ge=1, le=LONGEST_ANSWER_S
        ),
    ] = float(LONGEST_ANSWER_S)
    log_format: LogFormat = "auto"
    log_level: LogLevel = "info"
    traces: Traces = "off"

    def check(self) -> None:
        """Refuse contradictory settings, and a lack of secrets that was not explicitly allowed."""
        super().check()
        check_traces(self.traces)
        check_secrets(self)
        if self.ingest_metrics_port == self.ingest_port:
            raise SettingsError(
                f"LEDGER_INGEST_METRICS_PORT={self.ingest_metrics_port} is LEDGER_INGEST_PORT, "
                "which the internet reaches: give the metrics their own port"
            )
        if self.webhook_secrets and self.allow_unsigned:
            raise SettingsError(
                "LEDGER_ALLOW_UNSIGNED=true and LEDGER_WEBHOOK_SECRETS contradict each other: "
                "unset one of them"
            )
        if self.pay_tokens and self.pay_amounts is None:
            raise SettingsError(
                "LEDGER_PAY_TOKENS needs LEDGER_PAY_AMOUNTS: set it to minor if Plexy sends this "
                "integration's amounts in the smallest unit (150050), or to major if it sends them "
                "as decimal numbers (1500.50)"
            )
        if not self.webhook_secrets and not self.allow_unsigned and not self.pay_tokens:
            raise SettingsError(
                "LEDGER_WEBHOOK_SECRETS is not set: without the endpoint's signing secret no "
                "delivery can be checked; set it, or LEDGER_PAY_TOKENS for the Pay API, or for "
                "development set LEDGER_ALLOW_UNSIGNED=true"
            )
