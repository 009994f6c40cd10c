"""The worker's settings."""

from pathlib import Path
from typing import Annotated, Final

from ledger.signature import DEFAULT_TOLERANCE_S, SignedForm
from ledger.topics import TABLES
from ledger.trust import Trust
from runtime.access import require_token
from runtime.addresses import LOOPBACK, ApiToken, WebBind, WebPort
from runtime.logs import LogFormat, LogLevel
from runtime.minor_units import PLEXYS_MINOR_UNITS, CurrencyDecimals
from runtime.rules import RuleSettings
from runtime.settings import SettingsError, setting
from runtime.trace_settings import Traces, check_traces
from runtime.trust import (
    Form,
    OldWebhookSecrets,
    PayAmountsUnit,
    ToleranceSeconds,
    WebhookSecrets,
    check_secrets,
    enforced_trust,
    trust_of,
)

# With less memory, a database would flush its write buffers nearly all the time.
_MIN_MIB_PER_DATABASE: Final = 2


class WorkerSettings(RuleSettings, frozen=True, kw_only=True):
    """The settings of one worker: its folder, its views, and its fold.

    If the webhook endpoint's secrets are set, the views report for each delivery whether its
    signature is good.
    """

    data_dir: Annotated[
        Path, setting("folder for local state; each worker needs its own folder")
    ] = Path(".ledger")
    api_token: ApiToken = None
    webhook_secrets: WebhookSecrets = ()
    old_webhook_secrets: OldWebhookSecrets = ()
    signed_form: Form = SignedForm.EITHER
    signature_tolerance_s: ToleranceSeconds = DEFAULT_TOLERANCE_S
    pay_amounts: PayAmountsUnit = None
    web_bind: WebBind = LOOPBACK
    web_host: Annotated[
        str, setting("host name under which the other workers reach this worker's views")
    ] = LOOPBACK
    web_port: WebPort = 6066
    standby_replicas: Annotated[
        int, setting("other workers that keep a copy of each table partition ready", ge=0, le=10)
    ] = 1
    table_memory_mb: Annotated[
        int, setting("MiB for all of a worker's RocksDB block caches and write buffers", ge=16)
    ] = 256
    chunk_records: Annotated[
        int, setting("maximum number of records that are folded together", ge=1, le=100_000)
    ] = 4000
    log_format: LogFormat = "auto"
    log_level: LogLevel = "info"
    traces: Traces = "off"
    minor_units: CurrencyDecimals = PLEXYS_MINOR_UNITS

    def check(self) -> None:
        """Refuse bad settings, such as too little memory for the tables.

        Another example: the views listen on a network, but no token is set.
        """
        super().check()
        check_traces(self.traces)
        check_secrets(self)
        require_token("LEDGER_WEB_BIND", self.web_bind, self.api_token)
        require_token("LEDGER_WEB_HOST", self.web_host, self.api_token)
        enforced_trust(self)
        databases = self.databases
        if self.table_memory_mb < _MIN_MIB_PER_DATABASE * databases:
            raise SettingsError(
                f"LEDGER_TABLE_MEMORY_MB={self.table_memory_mb} is too little for {databases} "
                f"databases, one for each table and partition (LEDGER_PARTITIONS={self.partitions})"
                f": set at least {_MIN_MIB_PER_DATABASE * databases}"
            )

    @property
    def databases(self) -> int:
        """The number of the tables' databases: one for each table and partition."""
        return len(TABLES) * self.partitions

    @property
    def trust(self) -> Trust | None:
        """The rules by which the views judge signatures; ``None`` if no secret is set."""
        return trust_of(self) if self.webhook_secrets or self.old_webhook_secrets else None

    @property
    def enforced_trust(self) -> Trust | None:
        """The rules by which the fold judges signatures; ``None`` if ingress's check is enough."""
        return enforced_trust(self)
