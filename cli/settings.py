"""The settings of the commands; the settings of ingress and worker are in their own packages.

If two programs read the same variable, both declare the same type, default and description. A test
compares these declarations.
"""

from pathlib import Path
from typing import Annotated, Final

from ledger.deduplication import FORGET_AFTER_DAYS
from ledger.lifecycle import SEED
from ledger.signature import DEFAULT_TOLERANCE_S, SignedForm
from runtime.access import require_token
from runtime.addresses import (
    LOOPBACK,
    ApiToken,
    IngestHost,
    IngestMetricsHost,
    IngestMetricsPort,
    IngestPort,
    WebBind,
    WebPort,
)
from runtime.kafka.topics import TopicSettings
from runtime.logs import LogFormat, LogLevel
from runtime.minor_units import PLEXYS_MINOR_UNITS, CurrencyDecimals
from runtime.rules import (
    DEFAULT_NAMES,
    ForgetAfterDays,
    OrderFields,
    PaymentFields,
    RuleSetName,
    RuleSettings,
    VerifySignatures,
    rule_set,
)
from runtime.settings import Port, Secret, Settings, SettingsError, setting
from runtime.trust import (
    AllowUnsigned,
    Form,
    OldWebhookSecrets,
    PayAmountsUnit,
    PayTokens,
    ToleranceSeconds,
    WebhookSecrets,
    check_secrets,
)

# This secret is public, so use it only for development on one machine.
DEVELOPMENT_SECRET: Final = "whsec_development"  # noqa: S105
WEBHOOK_PATH: Final = "/webhooks/plexy"


class DemoSettings(Settings, frozen=True, kw_only=True):
    """The setting of ``demo``, which chooses free ports and a temporary folder itself."""

    kafka_cache: Annotated[
        Path | None,
        setting(
            "folder into which the embedded Kafka is downloaded, only once. Unset: `plexy-ledger` "
            "in the user's folder for caches"
        ),
    ] = None


class BrokerSettings(DemoSettings, frozen=True, kw_only=True):
    """The settings of the embedded Kafka of ``run`` and ``kafka``."""

    kafka_port: Annotated[Port, setting("port of the embedded Kafka, on 127.0.0.1")] = 19092
    data_dir: Annotated[
        Path, setting("folder for local state; each worker needs its own folder")
    ] = Path(".ledger")


class RunSettings(BrokerSettings, frozen=True, kw_only=True):
    """The settings of ``run``, apart from the settings of the programs that ``run`` starts."""

    allow_unsigned: AllowUnsigned = False


class SendSettings(Settings, frozen=True, kw_only=True):
    """The secrets and the address that ``send`` uses; the options of ``send`` take precedence."""

    webhook_secrets: WebhookSecrets = ()
    pay_tokens: PayTokens = ()
    pay_amounts: PayAmountsUnit = None
    signed_form: Form = SignedForm.EITHER
    ingest_host: IngestHost = LOOPBACK
    ingest_port: IngestPort = 8000

    def check(self) -> None:
        """Refuse a secret that no program accepts."""
        check_secrets(self)


class SimulateSettings(SendSettings, frozen=True, kw_only=True):
    """The settings of ``simulate``, which also reads the tolerance and a worker's address."""

    signature_tolerance_s: ToleranceSeconds = DEFAULT_TOLERANCE_S
    api_token: ApiToken = None
    web_bind: WebBind = LOOPBACK
    web_port: WebPort = 6066
    minor_units: CurrencyDecimals = PLEXYS_MINOR_UNITS


class AccountingSettings(TopicSettings, frozen=True, kw_only=True):
    """The settings of ``export`` and ``reconcile``: the ledger, and how amounts are written."""

    minor_units: CurrencyDecimals = PLEXYS_MINOR_UNITS


class StatusSettings(TopicSettings, frozen=True, kw_only=True):
    """The settings of ``status``: the ledger and its addresses; the options take precedence."""

    ingest_host: IngestHost = LOOPBACK
    ingest_port: IngestPort = 8000
    ingest_metrics_host: IngestMetricsHost = LOOPBACK
    ingest_metrics_port: IngestMetricsPort = None
    api_token: ApiToken = None
    web_bind: WebBind = LOOPBACK
    web_port: WebPort = 6066


class ProveSettings(Settings, frozen=True, kw_only=True):
    """The settings of ``prove``: the signing secrets, and how the ledger reads events."""

    order_fields: OrderFields = DEFAULT_NAMES.order
    payment_fields: PaymentFields = DEFAULT_NAMES.payment
    rules: RuleSetName = SEED.name
    forget_after_days: ForgetAfterDays = FORGET_AFTER_DAYS
    verify_signatures: VerifySignatures = "ingress"
    webhook_secrets: WebhookSecrets = ()
    old_webhook_secrets: OldWebhookSecrets = ()
    allow_unsigned: AllowUnsigned = False
    signed_form: Form = SignedForm.EITHER
    signature_tolerance_s: ToleranceSeconds = DEFAULT_TOLERANCE_S
    pay_amounts: PayAmountsUnit = None

    def check(self) -> None:
        """Refuse settings with which no signature can be checked, unless that is allowed."""
        rule_set(self.rules)
        check_secrets(self)
        _refuse_unsigned(self.verify_signatures, self.allow_unsigned)
        secrets = (*self.webhook_secrets, *self.old_webhook_secrets)
        _require_secrets(secrets, self.pay_amounts, self.allow_unsigned)


class JudgeSettings(RuleSettings, frozen=True, kw_only=True):
    """The settings for checking a log: its topics, the secrets, and how events are read."""

    webhook_secrets: WebhookSecrets = ()
    old_webhook_secrets: OldWebhookSecrets = ()
    allow_unsigned: AllowUnsigned = False
    signed_form: Form = SignedForm.EITHER
    signature_tolerance_s: ToleranceSeconds = DEFAULT_TOLERANCE_S
    pay_amounts: PayAmountsUnit = None

    def check(self) -> None:
        """Refuse settings with which no signature can be checked, unless that is allowed."""
        super().check()
        check_secrets(self)
        _refuse_unsigned(self.verify_signatures, self.allow_unsigned)
        # If only old secrets were set, every new delivery would be reported as badly signed.
        _require_secrets(self.webhook_secrets, self.pay_amounts, self.allow_unsigned)


class VerifySettings(JudgeSettings, frozen=True, kw_only=True):
    """The settings of ``verify``, which also asks a worker for the content of the disks."""

    api_token: ApiToken = None
    web_bind: WebBind = LOOPBACK
    web_port: WebPort = 6066


class AuditSettings(VerifySettings, frozen=True, kw_only=True):
    """The settings of ``audit``, which also has an interval, and serves metrics and probes."""

    audit_host: Annotated[
        str,
        setting("address that the audit's metrics and probes listen on"),
    ] = LOOPBACK
    audit_port: Annotated[Port, setting("port of the audit's metrics and probes")] = 6080
    audit_every_s: Annotated[
        float, setting("pause between two rounds of the audit, in seconds", ge=0.1, le=86_400)
    ] = 5.0
    audit_wait_s: Annotated[
        float,
        setting(
            "how many seconds the workers may take to fold the current log; if they take longer, "
            "the audit is not ready",
            ge=1,
            le=86_400,
        ),
    ] = 60.0
    log_format: LogFormat = "auto"
    log_level: LogLevel = "info"

    def check(self) -> None:
        """Refuse an address beyond loopback if no token is set."""
        super().check()
        require_token("LEDGER_AUDIT_HOST", self.audit_host, self.api_token)


def _refuse_unsigned(verify_signatures: str, allow_unsigned: bool) -> None:
    """Raise ``SettingsError`` if the workers check signatures, but this command would not."""
    if verify_signatures == "worker" and allow_unsigned:
        raise SettingsError(
            "LEDGER_VERIFY_SIGNATURES=worker and LEDGER_ALLOW_UNSIGNED=true contradict each other: "
            "if signatures are not checked, nobody can tell which records the workers fold. Unset "
            "one of the two settings"
        )


def _require_secrets(
    secrets: tuple[Secret, ...], pay_amounts: PayAmountsUnit, allow_unsigned: bool
) -> None:
    """Raise ``SettingsError`` if no sender can be checked, unless ``allow_unsigned`` is set."""
    if not (secrets or pay_amounts or allow_unsigned):
        raise SettingsError(
            "LEDGER_WEBHOOK_SECRETS is not set: without the endpoint's signing secret, no "
            "signature can be checked. Set it; or set LEDGER_PAY_AMOUNTS if this ledger takes only "
            "the Pay API; or set LEDGER_ALLOW_UNSIGNED=true to check everything except the "
            "signatures"
        )
