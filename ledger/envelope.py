"""The envelope of a Plexy event: what every delivery must have, whatever its type.

In: the raw body of a delivery. Out: an ``Envelope``, or a ``Rejection`` that names the field.
Never: a judgement of ``data``; that is ``ledger.events``' work, after the body has been kept.
"""

import re
from hashlib import blake2b
from typing import Annotated, Any, Final

import msgspec

from ledger.money import MAX_AMOUNT_MINOR
from ledger.rejections import Reason, Rejection

# Deeper than any event, and far from the depth at which a decoder gives up, which depends on how
# deep its caller stands: the same body must get the same verdict from ingress and every worker.
MAX_NESTING: Final = 64

# Ids and references are record keys and parts of addresses: a bound keeps both small.
MAX_ID_BYTES: Final = 512

_Id = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_BYTES)]
# Beyond 2**53-1 a number is no longer exact in every JSON reader; as a time it is absurd anyway.
_UnixSeconds = Annotated[int, msgspec.Meta(ge=0, le=MAX_AMOUNT_MINOR)]

# Strings are matched whole, so that a bracket in one is none.
_BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*"|[][{}]', re.DOTALL)
_FIELD_IN_MESSAGE = re.compile(r"`\$\.(\w+)|missing required field `(\w+)`")


class Envelope(msgspec.Struct, frozen=True, gc=False):
    """A Plexy event as its envelope shows it; ``created`` is in Unix seconds.

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
    """Decode a delivery's body; never raises, whatever the bytes are.

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
    # A body without that many brackets can't be nested that deep: nearly all end here.
    if body.count(b"{") + body.count(b"[") > MAX_NESTING and _nesting(body) > MAX_NESTING:
        return _TOO_DEEP
    # A character has at most four bytes: short texts need no encoding to be measured.
    if len(envelope.id) + len(envelope.type) > MAX_ID_BYTES // 4:
        for field, text in (("id", envelope.id), ("type", envelope.type)):
            if len(text.encode()) > MAX_ID_BYTES:
                detail = f"expected `{field}` of at most {MAX_ID_BYTES} bytes"
                return Rejection(reason=Reason.INVALID_ENVELOPE, detail=detail, field=field)
    return envelope


def content_digest(envelope: Envelope) -> bytes:
    """Return 16 bytes that tell an event's content (``type``, ``created``, ``data``) from another.

    The content is hashed as canonical JSON, keys sorted: a sender may serialise a retry anew.
    """
    content = (envelope.type, envelope.created, envelope.data)
    return blake2b(_CANONICAL.encode(content), digest_size=16).digest()


def _nesting(body: bytes) -> int:
    """Return how many arrays and objects of a well-formed body stand inside each other.

    All of the body counts, also what no field of the envelope takes: the decoder steps over that,
    and gives up at a depth of its own.
    """
    depth = deepest = 0
    for bracket in _BRACKETS.findall(body):
        depth += {b"{": 1, b"[": 1, b"}": -1, b"]": -1}.get(bracket, 0)
        deepest = max(deepest, depth)
    # `data` is the first level.
    return deepest - 1


def _invalid(error: msgspec.ValidationError) -> Rejection:
    # msgspec ends its sentences with the path, "… - at `$.created`", or names what is missing.
    message = str(error)
    found = _FIELD_IN_MESSAGE.search(message)
    field = next((name for name in found.groups() if name), "") if found else ""
    return Rejection(reason=Reason.INVALID_ENVELOPE, detail=message, field=field)
