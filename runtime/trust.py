"""Defines the settings that decide, in every program, which signatures are valid."""

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Final, Protocol

from ledger.pay import PayAmounts
from ledger.signature import SignedForm
from ledger.trust import Trust
from runtime.settings import Secret, SettingsError, setting, variable

WebhookSecrets = Annotated[
    tuple[Secret, ...],
    setting(
        "signing secrets of the Plexy endpoint (`whsec_…`), comma-separated; give both secrets "
        "while a new secret replaces an old one"
    ),
]
OldWebhookSecrets = Annotated[
    tuple[Secret, ...],
    setting("former signing secrets, for deliveries signed with them; comma-separated"),
]
Form = Annotated[
    SignedForm,
    setting(
        "what Plexy signs: `body`, `timestamped` (time and body), or `either`; in production, set "
        "the form that Plexy uses"
    ),
]
AllowUnsigned = Annotated[
    bool, setting("for development only: accept any delivery without checking its signature")
]
ToleranceSeconds = Annotated[
    int, setting("how far a signature's time may be from now, in seconds", ge=1, le=86_400)
]
PayTokens = Annotated[
    tuple[Secret, ...],
    setting(
        "bearer tokens of the Pay API, comma-separated; if one is set, ingress accepts the Pay "
        "API's notifications"
    ),
]
PayAmountsUnit = Annotated[
    PayAmounts | None,
    setting(
        "unit of the Pay API's amounts: `minor` (150050) or `major` (1500.50); if it is set, a "
        "check of signatures also accepts records that a bearer token authenticated"
    ),
]


# A shorter secret could be found by trying all possible secrets.
_LEAST_SECRET_CHARS: Final = 16
_QUOTES: Final = tuple("'\"`\u201c\u201d\u2018\u2019\u201e\u201a\u00ab\u00bb")
_SEPARATOR: Final = re.compile(r"[\s;]")


def check_secret(name: str, secret: str) -> None:
    """Refuse a secret that was copied together with other characters, or is too short.

    ``name`` is the setting or the option that has the secret.
    """
    found = None
    if secret[:1] in _QUOTES or secret[-1:] in _QUOTES:
        found = "is in quotes: give the secret without the quotes"
    elif f"{secret},".startswith("v1,"):
        found = "starts with `v1,`, which belongs to a signature: give only the part after `v1,`"
    elif _SEPARATOR.search(secret):
        found = (
            "contains white space or `;`: give the secret alone, without `Bearer`, and separate "
            "several with commas"
        )
    elif len(secret) < _LEAST_SECRET_CHARS:
        found = f"has {len(secret)} characters, expected at least {_LEAST_SECRET_CHARS}"
    if found is not None:
        raise SettingsError(f"a secret in {name} {found}; copy it from Plexy's dashboard")


def check_secrets(settings: object) -> None:
    """Refuse settings with a secret that ``check_secret`` refuses."""
    for field in ("webhook_secrets", "old_webhook_secrets", "pay_tokens"):
        for secret in getattr(settings, field, ()):
            check_secret(variable(field), secret.reveal())


class TrustSettings(Protocol):
    """The settings that are needed to check a signature."""

    @property
    def webhook_secrets(self) -> tuple[Secret, ...]:
        """The current secrets."""

    @property
    def old_webhook_secrets(self) -> tuple[Secret, ...]:
        """The former secrets."""

    @property
    def signed_form(self) -> SignedForm:
        """The form of the signed content."""

    @property
    def signature_tolerance_s(self) -> int:
        """The longest time in seconds between a signature's time and the delivery's arrival."""

    @property
    def pay_amounts(self) -> PayAmounts | None:
        """The unit of the Pay API's amounts; ``None`` if its notifications are refused."""


class EnforcedTrustSettings(TrustSettings, Protocol):
    """The settings that a program needs to check signatures while it folds the log."""

    @property
    def verify_signatures(self) -> str:
        """The program that checks signatures: ``ingress`` or ``worker``."""


def enforced_trust(settings: EnforcedTrustSettings) -> Trust | None:
    """Return the ``Trust`` with which workers fold; ``None`` if only ingress checks signatures.

    Raise ``SettingsError`` if neither a secret nor ``pay_amounts`` is set, because in that case no
    record could be folded.
    """
    if settings.verify_signatures != "worker":
        return None
    if not (settings.webhook_secrets or settings.old_webhook_secrets or settings.pay_amounts):
        raise SettingsError(
            "LEDGER_VERIFY_SIGNATURES=worker needs the endpoint's signing secrets: set "
            "LEDGER_WEBHOOK_SECRETS (and LEDGER_OLD_WEBHOOK_SECRETS for former ones) for the "
            "workers too, or leave the check to ingress"
        )
    return trust_of(settings)


def trust_of(
    settings: TrustSettings, more: Iterable[bytes] = (), since: Mapping[int, int] | None = None
) -> Trust:
    """Return the ``Trust`` of these settings; ``more`` are additional secrets.

    ``since`` has the first offset to check, for each partition.
    """
    given = (*settings.webhook_secrets, *settings.old_webhook_secrets)
    return Trust(
        secrets=(*(secret.reveal().encode() for secret in given), *more),
        form=settings.signed_form,
        tolerance_s=settings.signature_tolerance_s,
        expects_bearer=settings.pay_amounts is not None,
        since=since or {},
    )
