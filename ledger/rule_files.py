"""Read a shop's own rule set from the text of a JSON or TOML file.

Input: the file's name and text. Output: a ``RuleSet``, or a ``RuleFileError`` that names the file,
the line and the remedy. A file may extend a built-in rule set: its types are then added, and
replace those of the same name.
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
        meaning("fields of `data` with a captured amount; null: as in the extended rules"),
    ] = None


def read_rules(name: str, text: str) -> RuleSet:
    """Return the rules in the text of a file; a name that ends in ``.toml`` means TOML."""
    document = _document(name, text)
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
        return json.loads(text, object_pairs_hook=_without_repeats)
    except tomllib.TOMLDecodeError as error:
        raise RuleFileError(f"{name}: expected TOML: {error}") from None
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


class _RepeatedError(ValueError):
    """A JSON object has a key twice, of which a reader would silently take the last."""


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    for key, number in Counter(key for key, _ in pairs).items():
        if number > 1:
            raise _RepeatedError(key)
    return dict(pairs)


def _place(document: Any, text: str, message: str) -> tuple[int, str]:
    """Return the line of a fault, and the fault with its remedy."""
    types = document.get("types") if isinstance(document, dict) else None
    for name, kind in types.items() if isinstance(types, dict) else ():
        wrong = _wrong_kind(kind)
        if wrong is not None:
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


def _wrong_kind(kind: Any) -> Any:
    """Return the first part of a type's value that is not a kind; ``None`` if every part is."""
    kinds = kind.values() if isinstance(kind, dict) else (kind,)
    return next((each for each in kinds if each not in set(Kind)), None)


def _line_of(text: str, key: str, *, last: bool = False) -> int:
    """Return the number of the line that has a key: the first one, or the last one."""
    shown = {key, json.dumps(key), json.dumps(key, ensure_ascii=False)}
    found = [
        number
        for number, line in enumerate(text.splitlines(), 1)
        if key and re.split(r"\s*[:=]", line.strip(" \t{,"), maxsplit=1)[0] in shown
    ]
    return (found[-1] if last else found[0]) if found else 1
