"""Defines the settings that decide how the log of record is read.

All programs that fold the log must have the same values. After a change of a value, fold the log
from scratch: until then, `plexy-ledger verify` reports that the ledger differs from its log.
"""

from functools import cache
from pathlib import Path
from typing import Annotated, Final, Literal

from ledger.deduplication import DAY_MS, FORGET_AFTER_DAYS
from ledger.events import FieldNames, Reading
from ledger.lifecycle import BUILT_IN, SEED, RuleSet
from ledger.rule_files import RuleFileError, read_rules
from runtime.kafka.topics import TopicSettings
from runtime.settings import SettingsError, setting

DEFAULT_NAMES: Final = FieldNames()


OrderFields = Annotated[
    tuple[str, ...],
    setting(
        "fields of `data` and `data.metadata` that may hold the order's reference", min_length=1
    ),
]
PaymentFields = Annotated[
    tuple[str, ...],
    setting("fields of a refund's `data` that may hold the payment's reference", min_length=1),
]
RuleSetName = Annotated[
    str,
    setting(
        f"what each event type means: {', '.join(BUILT_IN)}, or the path of a JSON or TOML file of "
        "your own; after a change, the log must be folded from scratch",
        min_length=1,
    ),
]
# Plexy may retry for 75 hours. If ids were forgotten sooner than that, the ledger would forget
# events that may still be redelivered.
ForgetAfterDays = Annotated[
    int,
    setting(
        "days after which an event id is forgotten; must be longer than the 75 hours for which "
        "Plexy retries; after a change, the log must be folded from scratch",
        ge=4,
        le=36_500,
    ),
]


VerifySignatures = Annotated[
    Literal["ingress", "worker"],
    setting(
        "who checks signatures: only `ingress`, or also each `worker`, which sets aside records "
        "that have no good signature; after a change, the log must be folded from scratch"
    ),
]


@cache
def rule_set(name: str) -> RuleSet:
    """Return the built-in rules called ``name``, or the rules in the file at the path ``name``.

    A file is read once, so that its later changes don't affect a running program.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]
    try:
        return read_rules(name, Path(name).read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(
            f"LEDGER_RULES: {name!r} is not one of {', '.join(BUILT_IN)}, and can't be read as a "
            f"file: {error.strerror}. Give a built-in name, or the path of a file"
        ) from None
    except UnicodeDecodeError:
        raise SettingsError(
            f"LEDGER_RULES: {name}: expected UTF-8 text. Save the file as UTF-8"
        ) from None
    except RuleFileError as error:
        raise SettingsError(f"LEDGER_RULES: {error}") from None


def reading_of(order: tuple[str, ...], payment: tuple[str, ...], rules: str) -> Reading:
    """Return the way in which programs with these settings read events."""
    return Reading(FieldNames(order=order, payment=payment), rule_set(rules))


class RuleSettings(TopicSettings, frozen=True, kw_only=True):
    """The settings for reading events, for remembering their ids, and for checking signatures."""

    order_fields: OrderFields = DEFAULT_NAMES.order
    payment_fields: PaymentFields = DEFAULT_NAMES.payment
    forget_after_days: ForgetAfterDays = FORGET_AFTER_DAYS
    verify_signatures: VerifySignatures = "ingress"
    rules: RuleSetName = SEED.name

    def check(self) -> None:
        """Refuse rules that can't be read."""
        super().check()
        rule_set(self.rules)

    @property
    def reading(self) -> Reading:
        """The way in which events are read."""
        return reading_of(self.order_fields, self.payment_fields, self.rules)

    @property
    def forget_after_ms(self) -> int:
        """How long an event id is remembered, in milliseconds.

        The time is measured between the timestamps of log records.
        """
        return self.forget_after_days * DAY_MS
