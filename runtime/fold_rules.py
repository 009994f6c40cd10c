"""The settings that decide what the log is folded to: all workers of a group have the same ones.

Input: settings. Output: the names under which a worker joins its group, which say these settings,
and the differences from the settings of a running group. Invariant: no name reveals a secret.

Kafka takes a member into a group only if it shares the name of a protocol with all other members.
So the broker itself refuses a worker that would fold otherwise, and any program can ask what the
workers of a running group have agreed on.
"""

import hmac
from collections.abc import Iterator
from typing import Any, Final, Protocol

import msgspec
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError, for_code

from runtime.kafka.topic_states import Fault
from runtime.settings import Secret, variable
from runtime.trust import EnforcedTrustSettings

FOLD: Final = 1
"""The number of the fold itself: a release that folds a log to another state has the next one.

A release that workers of the former one can't run alongside, because of their rows, say, has the
next one too.
"""

REMEDY: Final = (
    "give all programs of this ledger the same settings, and another ledger a LEDGER_TOPIC_PREFIX "
    "of its own. Other settings take a stop of all workers, and a log that is folded from scratch: "
    "`plexy-ledger rebuild`"
)

# Two bytes tell secrets apart, and do not help to guess one.
_FINGERPRINT_BYTES: Final = 2
_FINGERPRINT_OF: Final = b"plexy-ledger"


class FoldSettings(EnforcedTrustSettings, Protocol):
    """All settings that decide what the log is folded to."""

    @property
    def group_id(self) -> str:
        """The group of the workers."""

    @property
    def order_fields(self) -> tuple[str, ...]:
        """Where the order's reference is looked up."""

    @property
    def payment_fields(self) -> tuple[str, ...]:
        """Where a refund's payment is looked up."""

    @property
    def forget_after_days(self) -> int:
        """How long an event id is remembered."""


class FoldRules(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The settings under which a log is folded, in the order in which they are compared.

    The last three count only where the workers check signatures. ``webhook_secrets`` is the
    fingerprint of one secret.
    """

    fold: int
    forget_after_days: int
    order_fields: tuple[str, ...]
    payment_fields: tuple[str, ...]
    verify_signatures: str
    signed_form: str = ""
    signature_tolerance_s: int = 0
    webhook_secrets: str = ""


def protocols(settings: FoldSettings) -> list[str]:
    """Return the names under which a worker with these settings joins its group.

    Where workers check signatures, each secret makes a name. So workers must share a secret, and
    one that already has the next secret may run alongside one that has not got it yet.
    """
    rules = FoldRules(
        fold=FOLD,
        forget_after_days=settings.forget_after_days,
        order_fields=settings.order_fields,
        payment_fields=settings.payment_fields,
        verify_signatures=settings.verify_signatures,
    )
    if settings.verify_signatures != "worker":
        return [_name(rules)]
    checked = msgspec.structs.replace(
        rules,
        signed_form=str(settings.signed_form),
        signature_tolerance_s=settings.signature_tolerance_s,
    )
    secrets = dict.fromkeys((*settings.webhook_secrets, *settings.old_webhook_secrets))
    return [
        _name(msgspec.structs.replace(checked, webhook_secrets=_fingerprint(secret)))
        for secret in secrets
    ]


def difference(settings: FoldSettings, agreed: str) -> Fault | None:
    """Return how a group's settings differ from these, with the remedy; ``None`` if they do not.

    ``agreed`` is the protocol of the group, which is empty while no worker runs.
    """
    ours = protocols(settings)
    if not agreed or agreed in ours:
        return None
    # Of several secrets, the one in common says that the difference is elsewhere.
    told = min((list(_differences(each, agreed)) for each in ours), key=len)
    return Fault(
        f"the workers of {settings.group_id} fold the log by other settings than these: "
        f"{', '.join(told)}",
        REMEDY,
    )


async def difference_from_group(admin: AIOKafkaAdminClient, settings: FoldSettings) -> Fault | None:
    """Ask the group of the workers that run now; ``None`` also if it does not answer."""
    try:
        (answer,) = await admin.describe_consumer_groups([settings.group_id])
        return difference(settings, agreed_in(answer))
    except KafkaError:
        return None


def agreed_in(answer: Any) -> str:
    """Return the protocol of the one group that Kafka was asked to describe."""
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
        yield "they run another release"
        return
    if there.fold != here.fold:
        yield "they run another release"
    for name in FoldRules.__struct_fields__[1:-1]:
        told = [_told(getattr(each, name)) for each in (there, here)]
        if told[0] != told[1] and all(told):
            yield f"{variable(name)} is {told[0]} there and {told[1]} here"
    if there.webhook_secrets and here.webhook_secrets != there.webhook_secrets:
        yield "LEDGER_WEBHOOK_SECRETS has no secret in common"


def _told(value: Any) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value or "")
