"""Whose signatures are good: the settings, alike for every program that checks them.

In: the environment's secrets and how Plexy signs. Out: a ``Trust``.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Protocol

from ledger.signature import SignedForm
from ledger.truth import Trust
from runtime.settings import Secret, setting

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
