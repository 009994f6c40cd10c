"""Problem documents (RFC 9457): every error that the HTTP services answer with.

In: a problem's code and what happened. Out: the JSON bytes and the media type. Plexy's dashboard
shows them to people, so ``detail`` is a sentence; programs rely on ``code``, which is stable.
"""

from http import HTTPStatus
from typing import Final

import msgspec

MEDIA_TYPE: Final = "application/problem+json"


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """One problem: ``status`` is the HTTP status, ``code`` its stable name.

    ``field`` is the path of the field at fault, where there is one. ``type`` stays out of the
    document: RFC 9457 reads its absence as ``about:blank``.
    """

    status: int
    code: str
    detail: str
    field: str = ""
    title: str = ""

    def encode(self) -> bytes:
        """Return the document as JSON; ``title`` is the status's own phrase (RFC 9457, 4.2.1)."""
        title = self.title or HTTPStatus(self.status).phrase
        return msgspec.json.encode(msgspec.structs.replace(self, title=title))
