"""Whose signatures are good: the settings, alike for every program that checks them.

In: the environment's secrets and how Plexy signs. Out: a ``Trust``.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Protocol

from ledger.signature import SignedForm
from ledger.trust import Trust
from runtime.settings import Secret, SettingsError, setting

WebhookSecrets = Annotated[
    tuple[Secret, ...],
    setting(
        "signing secrets of the Plexy endpoint (`whsec_…`), comma-separated; several while one is "
        "being replaced"
    ),
]
OldWebhookSecrets = Annotated[
    tuple[Secret, ...],
    setting("signing secrets of former times, for what was delivered then; comma-separated"),
]
Form = Annotated[
    SignedForm,
    setting(
        "what Plexy signs: `body`, `timestamped` (time and body), or `either`; in production set "
        "the one that fits"
    ),
]
AllowUnsigned = Annotated[
    bool, setting("for development only: don't check signatures, take any delivery")
]
ToleranceSeconds = Annotated[
    int, setting("how far a signature's time may be from now, in seconds", ge=1, le=86_400)
]


class TrustSettings(Protocol):
    """What a program knows of signatures."""

    @property
    def webhook_secrets(self) -> tuple[Secret, ...]:
        """The secrets of now."""

    @property
    def old_webhook_secrets(self) -> tuple[Secret, ...]:
        """The secrets of former times."""

    @property
    def signed_form(self) -> SignedForm:
        """What is signed."""

    @property
    def signature_tolerance_s(self) -> int:
        """How far a signature's time may be from the delivery's."""


class EnforcedTrustSettings(TrustSettings, Protocol):
    """What a program that folds the log knows of signatures."""

    @property
    def verify_signatures(self) -> str:
        """Who checks them: ``ingress`` or ``worker``."""


def enforced_trust(settings: EnforcedTrustSettings) -> Trust | None:
    """Return whose records alone are folded; ``None`` where ingress' own check is enough.

    Raises ``SettingsError`` where no record could be folded, for want of a secret.
    """
    if settings.verify_signatures != "worker":
        return None
    if not settings.webhook_secrets and not settings.old_webhook_secrets:
        raise SettingsError(
            "LEDGER_VERIFY_SIGNATURES=worker takes the endpoint's signing secrets: set "
            "LEDGER_WEBHOOK_SECRETS (and LEDGER_OLD_WEBHOOK_SECRETS for those of former times) for "
            "the workers too, or leave the check to ingress"
        )
    return trust_of(settings)


def trust_of(
    settings: TrustSettings, more: Iterable[bytes] = (), since: Mapping[int, int] | None = None
) -> Trust:
    """Return whose signatures these settings trust; ``since`` is the first offset to check."""
    given = (*settings.webhook_secrets, *settings.old_webhook_secrets)
    return Trust(
        secrets=(*(secret.reveal().encode() for secret in given), *more),
        form=settings.signed_form,
        tolerance_s=settings.signature_tolerance_s,
        since=since or {},
    )
