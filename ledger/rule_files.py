"""Read a shop's own rule set from the text of a JSON or TOML file.

Input: the file's name and text. Output: a ``RuleSet``, or a ``RuleFileError`` that names the file,
the line and the remedy. A file may extend a built-in rule set: the file's types are then added to
the built-in types, and replace built-in types of the same name.
"""

import json
import re
import tomllib
from collections import Counter
from typing import Annotated, Any, Final, Literal

import msgspec

from ledger.lifecycle import BUILT_IN, SEED, ByStatus, Kind, RuleSet
from ledger.published import NotEmpty, meaning

_TOML_LINE: Final = re.compile(r"line (\d+)")
_MSGSPEC_BYTE: Final = re.compile(r" \(byte (\d+)\)")
_KEY: Final = re.compile(
    r"""("(?:[^"\\\n]|\\.)*"|'[^'\n]*'|[\w-]+)(?=\s*[:=]|\s*\.|\]\s*$)""", re.MULTILINE
)


class RuleFileError(ValueError):
    """A rule file is wrong; the message names the file, the line and the expected text."""


class RuleFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A shop's own rules: what each event type states about its payment."""

    extends: Annotated[
        Literal["seed", "lifecycle", "pay"] | None,
        meaning("the built-in rules that the file adds to; null for none"),
    ] = None
    types: Annotated[
        dict[NotEmpty, Kind | ByStatus],
        meaning(
            "the kind of fact of each event type, or of each value of `data.status`, where `*` "
            "stands for every other value"
        ),
    ]
    follows_payments: Annotated[
        bool | None,
        meaning(
            "whether an event of any kind may name its payment, so that a success that names "
            "another payment is a capture of that payment; null: as in the extended rules"
        ),
    ] = None
    captured_fields: Annotated[
        tuple[NotEmpty, ...] | None,
        meaning(
            "fields of `data` with the amount of a capture or a success; null: as in the "
            "extended rules"
        ),
    ] = None


def read_rules(name: str, text: str) -> RuleSet:
    """Return the rules in the text of a file; a name that ends in ``.toml`` means TOML."""
    document = _document(name, text)
    if name.endswith(".toml"):
        _refuse_unquoted_names(name, text, document.get("types"))
    try:
        given = msgspec.convert(document, RuleFile)
    except msgspec.ValidationError as error:
        where, detail = _place(document, text, str(error))
        raise RuleFileError(f"{name}, line {where}: {detail}") from None
    base = BUILT_IN[given.extends] if given.extends else SEED
    follows, fields = given.follows_payments, given.captured_fields
    return RuleSet(
        name=name,
        types={**(base.types if given.extends else {}), **given.types},
        follows_payments=base.follows_payments if follows is None else follows,
        captured_fields=base.captured_fields if fields is None else fields,
    )


def _document(name: str, text: str) -> Any:
    try:
        if name.endswith(".toml"):
            return tomllib.loads(text)
        document = json.loads(text, object_pairs_hook=_without_repeats)
        # Python's reader accepts half of a surrogate pair, which UTF-8 text can't contain. The
        # reader of msgspec refuses such a text.
        msgspec.json.decode(text)
    except tomllib.TOMLDecodeError as error:
        found = _TOML_LINE.search(str(error))
        line = found[1] if found else len(text.splitlines())
        raise RuleFileError(f"{name}, line {line}: expected TOML: {error}") from None
    except json.JSONDecodeError as error:
        raise RuleFileError(
            f"{name}, line {error.lineno}: expected JSON: {error.msg}. A file in TOML needs a "
            "name that ends in .toml"
        ) from None
    except _RepeatedError as error:
        raise RuleFileError(
            f"{name}, line {_line_of(text, str(error), last=True)}: {str(error)!r:.80} occurs "
            "twice. Keep one of the two lines"
        ) from None
    except (ValueError, RecursionError) as error:
        at = _MSGSPEC_BYTE.search(str(error))
        line = 1 + text.encode().count(b"\n", 0, int(at[1]) if at else 0)
        raise RuleFileError(f"{name}, line {line}: it can't be read: {error}") from None
    return document


class _RepeatedError(ValueError):
    """A JSON object has a key twice; Python's reader itself would silently take the last value."""


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    for key, number in Counter(key for key, _ in pairs).items():
        if number > 1:
            raise _RepeatedError(key)
    return dict(pairs)


def _refuse_unquoted_names(name: str, text: str, types: Any) -> None:
    """Refuse an unquoted type such as ``shop.paid``, which TOML reads as a table ``shop``.

    The rules would then have the type ``shop`` with the status ``paid``, and no event has the type
    ``shop``.
    """
    for each, kind in types.items() if isinstance(types, dict) else ():
        bare = rf"""^[^#"'\n]*(?<![\w-]){re.escape(each)}\s*[.\]]"""
        found = re.search(bare, text, re.MULTILINE) if isinstance(kind, dict) else None
        if found:
            raise RuleFileError(
                f"{name}, line {text.count(chr(10), 0, found.end()) + 1}: the name {each!r:.80} "
                "has no quotes, so TOML reads the next part as a status. Write the whole name of "
                'the type in quotes, such as "shop.paid"'
            )


def _place(document: Any, text: str, message: str) -> tuple[int, str]:
    """Return the line of a fault, and the fault with its remedy."""
    types = document.get("types") if isinstance(document, dict) else None
    for name, kind in types.items() if isinstance(types, dict) else ():
        for wrong in _wrong_kinds(kind):
            expected = ", ".join(Kind)
            detail = f"the kind of {name!r:.80} is {wrong!r:.80}, expected one of {expected}"
            return _line_of(text, name), detail
    known = RuleFile.__struct_fields__
    for field in document if isinstance(document, dict) else ():
        if field not in known:
            detail = f"{field!r:.80} is unknown, expected one of {', '.join(known)}"
            return _line_of(text, field), detail
    reason, _, path = message.partition(" - at `$.")
    field = path.rstrip("`").partition("[")[0]
    return _line_of(text, field), f"{field}: {reason}" if field else reason


def _wrong_kinds(kind: Any) -> list[Any]:
    """Return the parts of a type's value that are not kinds."""
    kinds = kind.values() if isinstance(kind, dict) else (kind,)
    return [each for each in kinds if not isinstance(each, str) or each not in set(Kind)]


def _line_of(text: str, key: str, *, last: bool = False) -> int:
    """Return the number of the first line (if ``last``, the last line) that has a key."""
    found = [match.start() for match in _KEY.finditer(text) if _name_in(match[1]) == key]
    return 1 + text.count("\n", 0, found[-1 if last else 0]) if found else 1


def _name_in(token: str) -> str:
    try:
        return str(json.loads(token)) if token.startswith('"') else token.strip("'")
    except ValueError:
        # TOML has escapes that JSON lacks.
        return token.strip('"')
