"""Builds a program's settings once from an environment that is passed in, and checks them.

Input: a mapping of environment variables. Output: a frozen settings value, or a ``SettingsError``
that names the variable, its value and the expected value. Invariant: no message and no ``repr``
contains a secret.

A program's settings are a ``msgspec.Struct``; a field ``web_port`` is read from
``LEDGER_WEB_PORT``. ``describe`` generates the documentation from the fields.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, NamedTuple, Self

import msgspec

PREFIX: Final = "LEDGER_"


class SettingsError(ValueError):
    """A setting is wrong, or two settings contradict each other; the message names the remedy."""


class Secret:
    """A secret text, which only ``reveal`` returns, so that it can't be printed by accident."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the secret text; call this only where the text is used."""
        return self._value

    def __repr__(self) -> str:
        return "Secret('…')"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)


def setting(description: str, **bounds: Any) -> msgspec.Meta:
    """Describe a setting for ``--help`` and the docs; ``msgspec.Meta`` gets the ``bounds``."""
    return msgspec.Meta(description=description, **bounds)


Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The base of each program's settings."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Read and check the settings; an unset or empty variable means the default."""
        given: dict[str, Any] = {}
        for field in msgspec.structs.fields(cls):
            text = environment.get(variable(field.name), "").strip()
            if text:
                given[field.name] = _split(text) if _is_list(field) else text
        try:
            settings = msgspec.convert(given, cls, strict=False, dec_hook=_decode_text)
        except msgspec.ValidationError as error:
            raise SettingsError(_explain(error, given)) from None
        settings.check()
        return settings

    def check(self) -> None:
        """Raise ``SettingsError`` if two settings contradict each other."""


class Description(NamedTuple):
    """One row of the settings table."""

    variable: str
    default: str
    text: str


def variable(field: str) -> str:
    """Return the name of a field's environment variable."""
    return PREFIX + field.upper()


def describe(settings: type[Settings]) -> Iterator[Description]:
    """Yield a description of each of a program's settings."""
    for field in msgspec.structs.fields(settings):
        yield Description(variable(field.name), _default(field), _text(field))


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _is_list(field: msgspec.structs.FieldInfo) -> bool:
    return isinstance(_info(field), msgspec.inspect.VarTupleType)


def _info(field: msgspec.structs.FieldInfo) -> msgspec.inspect.Type:
    info = msgspec.inspect.type_info(field.type)
    return info.type if isinstance(info, msgspec.inspect.Metadata) else info


def _text(field: msgspec.structs.FieldInfo) -> str:
    info = msgspec.inspect.type_info(field.type)
    schema = info.extra_json_schema if isinstance(info, msgspec.inspect.Metadata) else None
    return str((schema or {}).get("description", ""))


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.default is msgspec.NODEFAULT or field.default is None:
        return ""
    if isinstance(field.default, tuple):
        return ",".join(map(str, field.default))
    return str(field.default).lower() if isinstance(field.default, bool) else str(field.default)


def _decode_text(wanted: type, value: Any) -> Any:
    """Create a value of a type that msgspec does not know; the type's only argument is the text."""
    return wanted(value)


def _explain(error: msgspec.ValidationError, given: Mapping[str, Any]) -> str:
    message, _, path = str(error).partition(" - at `$.")
    name = path.rstrip("`").split("[")[0]
    value = given.get(name)
    hidden = any(word in name for word in ("secret", "token", "password"))
    shown = f", got {value!r}" if isinstance(value, str) and not hidden else ""
    return f"{variable(name)}: {message}{shown}"
