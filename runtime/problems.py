"""Encodes errors of the HTTP services as problem documents (RFC 9457).

``detail`` is a sentence for people, because Plexy's dashboard shows the documents. ``code`` is
stable, because programs rely on it.
"""

from http import HTTPStatus
from typing import Final

import msgspec

MEDIA_TYPE: Final = "application/problem+json"


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """One problem: ``status`` is the HTTP status, and ``code`` is the problem's stable name.

    ``field`` is the path of the field at fault, if there is one. The document has no ``type``, so
    its type is ``about:blank`` (RFC 9457).
    """

    status: int
    code: str
    detail: str
    field: str = ""
    title: str = ""

    def encode(self) -> bytes:
        """Return the document as JSON; the default ``title`` is the status's own phrase.

        RFC 9457 recommends this phrase for the type ``about:blank`` (4.2.1).
        """
        title = self.title or HTTPStatus(self.status).phrase
        return msgspec.json.encode(msgspec.structs.replace(self, title=title))
