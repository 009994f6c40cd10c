"""Keeps workers out of a group whose members fold the log with different settings.

Input: settings. Output: the protocol names under which a worker joins its group, and the
differences between these settings and the settings of a running group. Invariants: each name
contains the settings, and no name reveals a secret.

Kafka admits a member to a group only if the member shares a protocol name with all other members.
So the broker refuses a worker with different settings. Any program can ask the broker for a group's
protocol name, and so for the group's settings.
"""

import hmac
from collections.abc import Iterator
from typing import Any, Final, Protocol

import msgspec
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError, for_code

from ledger.events import Reading
from runtime.fault import Fault
from runtime.settings import Secret, variable
from runtime.trust import EnforcedTrustSettings

FOLD: Final = 2
"""The version of the fold itself.

A release increments this number if the release folds the same log to a different state. The release
also increments the number if its workers can't run alongside the previous release's workers, for
example because the two releases write different rows.
"""

REMEDY: Final = (
    "give all programs of this ledger the same settings; a different ledger needs its own "
    "LEDGER_TOPIC_PREFIX. To change these settings, stop all workers and fold the log from scratch "
    "with `plexy-ledger rebuild`"
)

# Two bytes suffice to distinguish secrets, but are too few to help anyone guess a secret.
_FINGERPRINT_BYTES: Final = 2
_FINGERPRINT_OF: Final = b"plexy-ledger"


class FoldSettings(EnforcedTrustSettings, Protocol):
    """All settings that affect the state to which the log is folded."""

    @property
    def group_id(self) -> str:
        """The id of the workers' group."""

    @property
    def reading(self) -> Reading:
        """The way in which events are read, with the rules for their types."""

    @property
    def order_fields(self) -> tuple[str, ...]:
        """The fields in which the order's reference is looked up."""

    @property
    def payment_fields(self) -> tuple[str, ...]:
        """The fields in which a refund's payment is looked up."""

    @property
    def forget_after_days(self) -> int:
        """The number of days for which an event id is remembered."""


class FoldRules(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The settings under which a log is folded, in the order in which they are compared.

    ``rules`` is the digest of the rule set. The last four fields matter only if the workers check
    signatures. ``webhook_secrets`` is the fingerprint of one secret.
    """

    fold: int
    forget_after_days: int
    order_fields: tuple[str, ...]
    payment_fields: tuple[str, ...]
    verify_signatures: str
    rules: str = ""
    signed_form: str = ""
    signature_tolerance_s: int = 0
    pay_amounts: str = ""
    webhook_secrets: str = ""


def protocols(settings: FoldSettings) -> list[str]:
    """Return the protocol names under which a worker with these settings joins its group.

    If workers check signatures, there is one name per secret. So the workers of a group must share
    at least one secret. While a new secret replaces an old one, some of the workers may still lack
    the new secret.
    """
    rules = FoldRules(
        fold=FOLD,
        forget_after_days=settings.forget_after_days,
        order_fields=settings.order_fields,
        payment_fields=settings.payment_fields,
        verify_signatures=settings.verify_signatures,
        rules=settings.reading.rules.digest,
    )
    if settings.verify_signatures != "worker":
        return [_name(rules)]
    checked = msgspec.structs.replace(
        rules,
        signed_form=str(settings.signed_form),
        signature_tolerance_s=settings.signature_tolerance_s,
        pay_amounts=settings.pay_amounts or "unset",
    )
    secrets = dict.fromkeys((*settings.webhook_secrets, *settings.old_webhook_secrets))
    if not secrets:
        return [_name(checked)]
    return [
        _name(msgspec.structs.replace(checked, webhook_secrets=_fingerprint(secret)))
        for secret in secrets
    ]


def difference(settings: FoldSettings, agreed: str) -> Fault | None:
    """Return how these settings differ from a group's settings; ``None`` if they agree.

    ``agreed`` is the group's protocol name, which is empty while no worker runs.
    """
    ours = protocols(settings)
    if not agreed or agreed in ours:
        return None
    # If one of our secrets is the secret in the group's protocol name, our protocol name with that
    # secret has the fewest differences.
    found = min((list(_differences(each, agreed)) for each in ours), key=len)
    return Fault(
        f"the workers of {settings.group_id} fold the log with settings that differ from this "
        f"program's: {', '.join(found)}",
        REMEDY,
    )


async def difference_from_group(admin: AIOKafkaAdminClient, settings: FoldSettings) -> Fault | None:
    """Return the ``difference`` from a running group; ``None`` if no difference is known."""
    try:
        (answer,) = await admin.describe_consumer_groups([settings.group_id])
        return difference(settings, agreed_in(answer))
    except KafkaError:
        return None


def agreed_in(answer: Any) -> str:
    """Return the protocol name on which a group agreed, from the description of this group."""
    ((code, _group, _state, _kind, protocol, *_),) = answer.groups
    if code:
        raise for_code(code)
    return str(protocol)


def _name(rules: FoldRules) -> str:
    return msgspec.json.encode(rules).decode()


def _fingerprint(secret: Secret) -> str:
    digest = hmac.digest(secret.reveal().encode(), _FINGERPRINT_OF, "sha256")
    return digest[:_FINGERPRINT_BYTES].hex()


def _differences(ours: str, agreed: str) -> Iterator[str]:
    here = msgspec.json.decode(ours, type=FoldRules)
    try:
        there = msgspec.json.decode(agreed, type=FoldRules)
    except msgspec.DecodeError:
        yield "the workers run a different release"
        return
    if there.fold != here.fold:
        yield "the workers run a different release"
    for name in FoldRules.__struct_fields__[1:-1]:
        shown = [_shown(getattr(each, name)) for each in (there, here)]
        if shown[0] != shown[1] and all(shown):
            yield f"{variable(name)} is {shown[0]} in the group and {shown[1]} in this program"
    if there.webhook_secrets and here.webhook_secrets != there.webhook_secrets:
        yield "LEDGER_WEBHOOK_SECRETS lacks the secret that the group agreed on"


def _shown(value: Any) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value or "")
