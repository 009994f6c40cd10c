"""Decode the envelope of a Plexy event: the fields that every delivery has, whatever its type.

Input: the raw body of a delivery. Output: an ``Envelope``, or a ``Rejection`` that names the field.
Invariant: the same bytes get the same verdict in every program. ``ledger.events`` reads ``data``
later, in the worker.
"""

import re
from hashlib import blake2b
from typing import Annotated, Any, Final

import msgspec

from ledger.money import MAX_AMOUNT_MINOR
from ledger.rejections import Reason, Rejection

# No real event is nested this deeply. The decoder's own limit is far higher, but depends on the
# caller's stack, so ingress and a worker could give the same body different verdicts.
MAX_NESTING: Final = 64

# Ids and references become record keys and parts of URLs; the bound keeps both short.
MAX_ID_BYTES: Final = 512

# Unicode's category Cc: JSON needs six bytes for each of them, and a terminal acts on them.
_CONTROL_CHARACTERS: Final = r"\u0000-\u001f\u007f-\u009f"
_CONTROL: Final = re.compile(f"[{_CONTROL_CHARACTERS}]")

_Id = Annotated[
    str,
    msgspec.Meta(
        min_length=1,
        max_length=MAX_ID_BYTES,
        # The pattern is only for the schema: control characters are rejected with their own reason.
        extra_json_schema={"pattern": f"^[^{_CONTROL_CHARACTERS}]*$"},
    ),
]
# Some JSON readers round numbers above 2**53-1, and no real time is that large.
_UnixSeconds = Annotated[int, msgspec.Meta(ge=0, le=MAX_AMOUNT_MINOR)]

# Strings are matched whole, so that the brackets inside them do not count.
_BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*"|[][{}]', re.DOTALL)
_FIELD_IN_MESSAGE = re.compile(r"`\$\.(\w+)|missing required field `(\w+)`")


class Envelope(msgspec.Struct, frozen=True, gc=False):
    """The fields of a Plexy event; ``created`` is in Unix seconds.

    Source: Plexy's webhook reference (``id``, ``type``, ``created``, ``data``).
    """

    id: _Id
    type: _Id
    created: _UnixSeconds
    data: dict[str, Any]


_TOO_DEEP: Final = Rejection(
    reason=Reason.MALFORMED_JSON, detail=f"the body is nested deeper than {MAX_NESTING} levels"
)
_DECODER: Final = msgspec.json.Decoder(Envelope)
_CANONICAL: Final = msgspec.json.Encoder(order="sorted")


def decode_envelope(body: bytes) -> Envelope | Rejection:
    """Decode a delivery's body; never raises an exception.

    >>> decode_envelope(b'{"id": "evt_1", "type": "t", "created": 1, "data": {}}').id
    'evt_1'
    >>> decode_envelope(b'{"id": "evt_1", "type": "t", "created": 1.5, "data": {}}').field
    'created'
    """
    try:
        envelope = _DECODER.decode(body)
    except msgspec.ValidationError as error:
        return _invalid(error)
    except RecursionError:
        return _TOO_DEEP
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return Rejection(reason=Reason.MALFORMED_JSON, detail=f"the body is not JSON: {error}")
    # Nearly every body has too few brackets to be nested that deeply, so it is not searched.
    if body.count(b"{") + body.count(b"[") > MAX_NESTING and _nesting(body) > MAX_NESTING:
        return _TOO_DEEP
    return _fault_of("id", envelope.id) or _fault_of("type", envelope.type) or envelope


def is_too_long(text: str) -> bool:
    """Return whether an id has more than ``MAX_ID_BYTES``."""
    # A character has at most four bytes, so a short text is not encoded to be measured.
    return len(text) * 4 > MAX_ID_BYTES and len(text.encode()) > MAX_ID_BYTES


def has_control_characters(text: str) -> bool:
    r"""Return whether an id has characters of Unicode's category Cc.

    >>> [has_control_characters(text) for text in ("ord 1/\u00fc", "ord\n1", "ord\x85")]
    [False, True, True]
    """
    # Nearly all ids are printable, and `isprintable` is faster than the search.
    return not text.isprintable() and _CONTROL.search(text) is not None


def content_digest(envelope: Envelope) -> bytes:
    """Return a 16-byte digest of an event's content: ``type``, ``created`` and ``data``.

    Keys are sorted before hashing, because a sender may serialise a retry differently.
    """
    content = (envelope.type, envelope.created, envelope.data)
    return blake2b(_CANONICAL.encode(content), digest_size=16).digest()


def _fault_of(field: str, text: str) -> Rejection | None:
    if is_too_long(text):
        detail = f"expected `{field}` of at most {MAX_ID_BYTES} bytes"
        return Rejection(reason=Reason.INVALID_ENVELOPE, detail=detail, field=field)
    if has_control_characters(text):
        detail = f"expected `{field}` without control characters"
        return Rejection(reason=Reason.CONTROL_CHARACTERS, detail=detail, field=field)
    return None


def _nesting(body: bytes) -> int:
    """Return how deeply the arrays and objects of a well-formed body are nested.

    Unknown fields count too: the decoder skips them, but has a limit of its own for their depth.
    """
    depth = deepest = 0
    for bracket in _BRACKETS.findall(body):
        depth += {b"{": 1, b"[": 1, b"}": -1, b"]": -1}.get(bracket, 0)
        deepest = max(deepest, depth)
    # The body itself is not a level; `data` is the first.
    return deepest - 1


def _invalid(error: msgspec.ValidationError) -> Rejection:
    # A msgspec message ends with the path, "… - at `$.created`", or names the missing field.
    message = str(error)
    found = _FIELD_IN_MESSAGE.search(message)
    field = next((name for name in found.groups() if name), "") if found else ""
    return Rejection(reason=Reason.INVALID_ENVELOPE, detail=message, field=field)
