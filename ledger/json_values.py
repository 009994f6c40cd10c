"""Decode JSON so that the same bytes give the same value, or the same fault, in every program.

Input: UTF-8 text from outside. Output: a value, or a ``MalformedJsonError``. Invariant: a number
that no float or integer can hold is not a fault of the text. It is read as a ``msgspec.Raw`` with
its digits.
"""

import json
import re
from collections.abc import Callable
from typing import Any, Final, NoReturn

import msgspec

# No real event is nested this deeply. The decoder's own limit is far higher, but depends on the
# caller's stack. If only that limit existed, ingress and a worker could give the same body
# different verdicts.
MAX_NESTING: Final = 64

# By default, Python refuses to convert a longer text to an integer.
_MAX_INTEGER_CHARS: Final = 4300
# Each string is matched as a whole, so that the brackets inside it do not count.
_BRACKETS: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[][{}]', re.DOTALL)
_ANY: Final = msgspec.json.Decoder()
_EXACT: Final = msgspec.json.Decoder(float_hook=msgspec.Raw)
_ENCODER: Final = msgspec.json.Encoder()


class MalformedJsonError(ValueError):
    """A text is not JSON, or is nested too deeply; the message says what is wrong."""


def decode_json(text: bytes, *, exact: bool = False) -> Any:
    """Return the value of a JSON text.

    If ``exact``, each number with a fraction or an exponent is a ``msgspec.Raw`` with its digits.

    >>> decode_json(b'{"a": [1, 1.5, 1e400]}')
    {'a': [1, 1.5, <msgspec.Raw object at 0x...>]}
    """
    try:
        value = (_EXACT if exact else _ANY).decode(text)
    except msgspec.ValidationError:
        # This decoder raises this error only for a number that is out of range.
        return _with_any_number(text, msgspec.Raw if exact else _float)
    except RecursionError:
        raise _too_deep() from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedJsonError(f"the body is not JSON: {error}") from None
    check_nesting(text)
    return value


def check_nesting(text: bytes) -> None:
    """Raise ``MalformedJsonError`` if a JSON text is nested too deeply.

    The depth of an unknown field counts too, because a decoder that skips the field still has its
    own limit on that depth.
    """
    # A text with few brackets can't be nested too deeply. Nearly every text has few brackets, so it
    # need not be searched. `split` ends early, and takes half as long as `count`.
    braces = len(text.split(b"{", MAX_NESTING + 1)) - 1
    if braces <= MAX_NESTING and (b"[" not in text or braces + text.count(b"[") <= MAX_NESTING):
        return
    depth = deepest = 0
    for bracket in _BRACKETS.findall(text):
        depth += {b"{": 1, b"[": 1, b"}": -1, b"]": -1}.get(bracket, 0)
        deepest = max(deepest, depth)
    # The outermost array or object does not count as a level.
    if deepest - 1 > MAX_NESTING:
        raise _too_deep()


def _too_deep() -> MalformedJsonError:
    return MalformedJsonError(f"the body is nested deeper than {MAX_NESTING} levels")


def _with_any_number(text: bytes, parse_float: Callable[[str], Any]) -> Any:
    check_nesting(text)
    try:
        value = json.loads(
            text.decode(), parse_float=parse_float, parse_int=_integer, parse_constant=_refuse
        )
        # The decoder in `decode_json` refuses a lone surrogate, but `json.loads` accepts one. Here
        # the encoder refuses the surrogate, because UTF-8 can't contain it.
        _ENCODER.encode(value)
    except ValueError as error:
        raise MalformedJsonError(f"the body is not JSON: {error}") from None
    return value


def _float(digits: str) -> float | msgspec.Raw:
    value = float(digits)
    return value if abs(value) != float("inf") else msgspec.Raw(digits)


def _integer(digits: str) -> int | msgspec.Raw:
    return int(digits) if len(digits) <= _MAX_INTEGER_CHARS else msgspec.Raw(digits)


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
