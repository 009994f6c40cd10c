"""The settings of the commands that no other package has.

In: the environment. Out: frozen values, like those of the other programs. A variable that another
program reads too has the same type, default and description here; a test holds that.
"""

from pathlib import Path
from typing import Annotated

from ingest.settings import RUN_METRICS_PORT
from ledger.deduplication import FORGET_AFTER_DAYS
from ledger.signature import DEFAULT_TOLERANCE_S, SignedForm
from runtime.logs import LogFormat, LogLevel
from runtime.rules import (
    DEFAULT_NAMES,
    ForgetAfterDays,
    OrderFields,
    PaymentFields,
    RuleSettings,
)
from runtime.settings import Port, Secret, Settings, SettingsError, setting
from runtime.topics import TopicSettings
from runtime.trust import Form, OldWebhookSecrets, ToleranceSeconds, WebhookSecrets


class DemoSettings(Settings, frozen=True, kw_only=True):
    """What ``demo`` reads: its ports are free ones, and its data is in a temporary folder."""

    kafka_cache: Annotated[
        Path | None,
        setting(
            "folder that the embedded Kafka is fetched into, once. Unset: `plexy-ledger` in the "
            "user's folder for caches"
        ),
    ] = None


class BrokerSettings(DemoSettings, frozen=True, kw_only=True):
    """The embedded Kafka of ``run`` and ``kafka``."""

    kafka_port: Annotated[Port, setting("port of the embedded Kafka, on 127.0.0.1")] = 19092
    data_dir: Annotated[
        Path, setting("folder for local state; each worker needs one of its own")
    ] = Path(".ledger")


class RunSettings(BrokerSettings, frozen=True, kw_only=True):
    """What ``run`` reads beside the settings of the programs that it starts."""

    allow_unsigned: Annotated[
        bool, setting("for development only: don't check signatures, take any delivery")
    ] = False


class SendSettings(Settings, frozen=True, kw_only=True):
    """What ``send`` signs with, and where it sends; its options win."""

    webhook_secrets: WebhookSecrets = ()
    signed_form: Form = SignedForm.EITHER
    ingest_host: Annotated[str, setting("address that webhooks are received on")] = "127.0.0.1"
    ingest_port: Annotated[Port, setting("port that webhooks are received on")] = 8000


class SimulateSettings(SendSettings, frozen=True, kw_only=True):
    """What ``simulate`` reads beside that: how long signatures hold, and whom it asks."""

    signature_tolerance_s: ToleranceSeconds = DEFAULT_TOLERANCE_S
    api_token: Annotated[
        Secret | None, setting("bearer token that the web views ask for; needed beyond loopback")
    ] = None
    web_bind: Annotated[str, setting("address that the web views listen on")] = "127.0.0.1"
    web_port: Annotated[Port, setting("port of the web views")] = 6066


class StatusSettings(TopicSettings, frozen=True, kw_only=True):
    """What ``status`` reads: which ledger, and where its programs are; its options win."""

    ingest_host: Annotated[str, setting("address that webhooks are received on")] = "127.0.0.1"
    ingest_port: Annotated[Port, setting("port that webhooks are received on")] = 8000
    ingest_metrics_host: Annotated[
        str, setting("address that ingress' metrics are served on, to whoever asks")
    ] = "127.0.0.1"
    ingest_metrics_port: Annotated[
        Port | None,
        setting(
            "port of ingress' metrics, of all its processes. Unset: `run` takes "
            f"{RUN_METRICS_PORT}, `ingest` serves none"
        ),
    ] = None
    api_token: Annotated[
        Secret | None, setting("bearer token that the web views ask for; needed beyond loopback")
    ] = None
    web_bind: Annotated[str, setting("address that the web views listen on")] = "127.0.0.1"
    web_port: Annotated[Port, setting("port of the web views")] = 6066


class ProveSettings(Settings, frozen=True, kw_only=True):
    """What ``prove`` reads: whose signatures were good, and how the ledger reads events."""

    order_fields: OrderFields = DEFAULT_NAMES.order
    payment_fields: PaymentFields = DEFAULT_NAMES.payment
    forget_after_days: ForgetAfterDays = FORGET_AFTER_DAYS
    webhook_secrets: WebhookSecrets = ()
    old_webhook_secrets: OldWebhookSecrets = ()
    allow_unsigned: Annotated[
        bool, setting("for development only: don't check signatures, take any delivery")
    ] = False
    signed_form: Form = SignedForm.EITHER
    signature_tolerance_s: ToleranceSeconds = DEFAULT_TOLERANCE_S

    def check(self) -> None:
        """Refuse to pass deliveries whose signatures can't be checked, unless told so."""
        if not self.webhook_secrets and not self.old_webhook_secrets and not self.allow_unsigned:
            raise SettingsError(
                "LEDGER_WEBHOOK_SECRETS is not set: without the endpoint's signing secret no "
                "signature can be checked; set it, or LEDGER_ALLOW_UNSIGNED=true to check the rest"
            )


class VerifySettings(RuleSettings, frozen=True, kw_only=True):
    """What ``verify`` reads: which ledger, whose signatures were good, how events are read."""

    webhook_secrets: WebhookSecrets = ()
    old_webhook_secrets: OldWebhookSecrets = ()
    allow_unsigned: Annotated[
        bool, setting("for development only: don't check signatures, take any delivery")
    ] = False
    signed_form: Form = SignedForm.EITHER
    signature_tolerance_s: ToleranceSeconds = DEFAULT_TOLERANCE_S

    def check(self) -> None:
        """Refuse to pass a log whose signatures can't be checked, unless told so."""
        super().check()
        if not self.webhook_secrets and not self.allow_unsigned:
            raise SettingsError(
                "LEDGER_WEBHOOK_SECRETS is not set: without the endpoint's signing secret no "
                "record can be checked; set it, or for development LEDGER_ALLOW_UNSIGNED=true"
            )


class AuditSettings(VerifySettings, frozen=True, kw_only=True):
    """What ``audit`` reads: the same ledger, how often, and where it says what it found."""

    audit_host: Annotated[
        str,
        setting("address of the audit's metrics and probes, which ask for no token"),
    ] = "127.0.0.1"
    audit_port: Annotated[Port, setting("port of the audit's metrics and probes")] = 6080
    audit_every_s: Annotated[
        float, setting("pause between two rounds of the audit, in seconds", ge=0.1, le=86_400)
    ] = 5.0
    audit_wait_s: Annotated[
        float,
        setting(
            "how long the workers may take to fold what is in the log before the audit is not "
            "ready, in seconds",
            ge=1,
            le=86_400,
        ),
    ] = 60.0
    log_format: Annotated[
        LogFormat, setting("`json`, `pretty`, or `auto`: pretty on a terminal")
    ] = "auto"
    log_level: Annotated[LogLevel, setting("`debug`, `info`, `warning` or `error`")] = "info"
