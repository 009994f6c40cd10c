"""Decodes the envelope of a Plexy event: the fields that every delivery has, whatever its type.

Input: the raw body of a delivery. Output: an ``Envelope``, or a ``Rejection`` that names the field.
Invariant: the same bytes get the same verdict in every program. ``ledger.events`` judges
``created`` and ``data`` later, in the worker.
"""

import re
from hashlib import blake2b
from typing import Annotated, Any, Final

import msgspec

from ledger.json_values import MalformedJsonError, check_nesting, decode_json
from ledger.rejections import Reason, Rejection

# Ids and references become record keys and parts of URLs; the bound keeps both short.
MAX_ID_BYTES: Final = 512
# A character has at most four bytes, so an id of at most this many characters is never too long.
ALWAYS_SHORT_CHARS: Final = MAX_ID_BYTES // 4

# These are Unicode's category Cc. JSON needs up to six bytes for each of them, and a terminal takes
# them as commands.
_CONTROL_CHARACTERS: Final = r"\u0000-\u001f\u007f-\u009f"
_CONTROL: Final = re.compile(f"[{_CONTROL_CHARACTERS}]")

_Id = Annotated[
    str,
    msgspec.Meta(
        min_length=1,
        max_length=MAX_ID_BYTES,
        # The pattern is only in the schema. The decoder does not check it, because control
        # characters are rejected for a reason of their own.
        extra_json_schema={"pattern": f"^[^{_CONTROL_CHARACTERS}]*$"},
    ),
]


_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


class Envelope(msgspec.Struct, frozen=True, gc=False):
    """The fields of a Plexy event; ``created`` and ``data`` may have any value.

    Source: Plexy's webhook reference (``id``, ``type``, ``created``, ``data``).
    """

    id: _Id
    type: _Id
    created: Any = None
    data: Any = None


_DECODER: Final = msgspec.json.Decoder(Envelope)
_CANONICAL: Final = msgspec.json.Encoder(order="sorted")


def decode_envelope(body: bytes) -> Envelope | Rejection:
    """Decode a delivery's body; never raises an exception.

    A byte-order mark before the object is skipped.

    >>> decode_envelope(b'{"id": "evt_1", "type": "t", "created": 1, "data": {}}').id
    'evt_1'
    >>> decode_envelope(b'{"id": 7, "type": "t"}').id
    '7'
    >>> decode_envelope(b'{"id": true, "type": "t"}').field
    'id'
    """
    text = body.removeprefix(_BYTE_ORDER_MARK)
    try:
        try:
            envelope = _DECODER.decode(text)
            check_nesting(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return _unusual(decode_json(text))
    except MalformedJsonError as error:
        return Rejection(reason=Reason.MALFORMED_JSON, detail=str(error))
    event_id, kind = envelope.id, envelope.type
    # Nearly every id and type is a short, printable text, which has no fault.
    is_short = event_id and kind and len(event_id) + len(kind) <= ALWAYS_SHORT_CHARS
    if is_short and event_id.isprintable() and kind.isprintable():
        return envelope
    return fault_of("id", event_id) or fault_of("type", kind) or envelope


def json_text(body: bytes) -> bytes:
    """Return a body without the byte-order mark that may precede its JSON."""
    return body.removeprefix(_BYTE_ORDER_MARK)


def decimal_text(value: object) -> object:
    """Return an integer as its decimal text, and any other value unchanged.

    >>> decimal_text(1004723697), decimal_text(True), decimal_text("pay_1")
    ('1004723697', True, 'pay_1')
    """
    return str(value) if type(value) is int else value


def is_too_long(text: str) -> bool:
    """Return whether an id has more than ``MAX_ID_BYTES``."""
    return len(text) > ALWAYS_SHORT_CHARS and len(text.encode()) > MAX_ID_BYTES


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


def fault_of(field: str, text: object) -> Rejection | None:
    """Return why a value can't be an id or a type; ``None`` if it can."""
    if not isinstance(text, str) or not text:
        got = "nothing" if text is None or text == "" else type(text).__name__
        detail = f"expected `{field}` as text{' or an integer' if field == 'id' else ''}, got {got}"
        return Rejection(reason=Reason.INVALID_ENVELOPE, detail=detail, field=field)
    # A short, printable text has none of the faults below, and nearly every text is short and
    # printable.
    if len(text) <= ALWAYS_SHORT_CHARS and text.isprintable():
        return None
    if is_too_long(text):
        detail = f"expected `{field}` of at most {MAX_ID_BYTES} bytes"
        return Rejection(reason=Reason.INVALID_ENVELOPE, detail=detail, field=field)
    if has_control_characters(text):
        detail = f"expected `{field}` without control characters"
        return Rejection(reason=Reason.CONTROL_CHARACTERS, detail=detail, field=field)
    return None


def _unusual(body: Any) -> Envelope | Rejection:
    """Judge a body that the fast decoder refused.

    The id of the body may be an integer, the body may contain a number that the fast decoder can't
    read, or the body may have a fault.
    """
    if not isinstance(body, dict):
        detail = f"expected an object, got {type(body).__name__}"
        return Rejection(reason=Reason.INVALID_ENVELOPE, detail=detail)
    event_id, kind = decimal_text(body.get("id")), body.get("type")
    fault = fault_of("id", event_id) or fault_of("type", kind)
    return fault or Envelope(str(event_id), str(kind), body.get("created"), body.get("data"))
