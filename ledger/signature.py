"""Checks Plexy's signature, which shows that a body comes from Plexy and was signed recently.

Input: the ``Plexy-Signature`` header, the raw body, the secrets and the time. Output: ``None`` if
the signature is good, else a ``SignatureFault``. Invariants: no header causes an exception, and the
time that a comparison takes reveals nothing about a secret. The pages of Plexy's webhook reference
disagree about which bytes are signed, so a ``SignedForm`` selects them.
"""

import hmac
import re
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Final

DEFAULT_TOLERANCE_S: Final = 300


class SignedForm(StrEnum):
    """The bytes that Plexy signs.

    Plexy's current page says that it signs the body; an older page says that it signs ``t.body``.
    """

    BODY = "body"
    TIMESTAMPED = "timestamped"
    EITHER = "either"


class SignatureFault(StrEnum):
    """Why a signature is refused. Each value is the ``code`` of ingress's answer."""

    MISSING = "signature_missing"
    MALFORMED = "signature_malformed"
    MISMATCH = "signature_mismatch"
    OUT_OF_TOLERANCE = "timestamp_out_of_tolerance"


# Plexy's headers are shorter than this bound, which limits the work for a hostile header.
_MAX_HEADER_CHARS: Final = 4096
# \d would also match digits of other scripts, which int() would accept.
_TIMESTAMP: Final = re.compile(r"[0-9]{1,15}")
_HEX_SHA256: Final = re.compile(r"[0-9a-fA-F]{64}")
# Nearly every header has this form. One match replaces fourteen calls for splitting at commas.
_PLAIN: Final = re.compile(r"t=([0-9]{1,15}),v1=([0-9a-fA-F]{64})")


def verify(  # noqa: PLR0913 - all that the answer depends on
    header: str | None,
    body: bytes,
    *,
    secrets: Sequence[bytes],
    now_s: float,
    tolerance_s: float = DEFAULT_TOLERANCE_S,
    form: SignedForm = SignedForm.EITHER,
) -> SignatureFault | None:
    """Check a delivery's signature at Unix time ``now_s``, against each of ``secrets``.

    It is enough that one ``v1`` matches one secret, because the sender or this server may be
    replacing a secret. The time is checked last, so that only a holder of a secret learns the time
    of our clock.
    """
    if not header:
        return SignatureFault.MISSING
    parsed = _parse(header)
    if parsed is None:
        return SignatureFault.MALFORMED
    timestamp, given = parsed
    if not _matches(timestamp, given, body, secrets, form):
        return SignatureFault.MISMATCH
    if abs(now_s - int(timestamp)) > tolerance_s:
        return SignatureFault.OUT_OF_TOLERANCE
    return None


def sign(body: bytes, secret: bytes, timestamp_s: int, form: SignedForm = SignedForm.BODY) -> str:
    """Return the header that Plexy would send with this body at this Unix time."""
    message = body if form is SignedForm.BODY else _timestamped(str(timestamp_s), body)
    return f"t={timestamp_s},v1={hmac.digest(secret, message, 'sha256').hex()}"


def signed_at_s(header: str) -> int:
    """Return the Unix time in a well-formed header.

    >>> signed_at_s("t=1700000000,v1=" + "0" * 64)
    1700000000
    """
    parsed = _parse(header)
    if parsed is None:
        raise ValueError("expected a well-formed Plexy-Signature")
    return int(parsed[0])


def _parse(header: str) -> tuple[str, list[bytes]] | None:
    """Return the timestamp's digits and the ``v1`` digests; ``None`` for a malformed header."""
    plain = _PLAIN.fullmatch(header)
    if plain is not None:
        return plain[1], [bytes.fromhex(plain[2])]
    if len(header) > _MAX_HEADER_CHARS:
        return None
    pairs = [part.strip().partition("=") for part in header.split(",")]
    timestamps = [value for name, _, value in pairs if name == "t"]
    given = [value for name, _, value in pairs if name == "v1"]
    # A malformed ``v1`` matches nothing, and does not make a good ``v1`` in the same header
    # invalid.
    digests = [bytes.fromhex(value) for value in given if _HEX_SHA256.fullmatch(value)]
    if len(timestamps) != 1 or not _TIMESTAMP.fullmatch(timestamps[0]) or not digests:
        return None
    return timestamps[0], digests


def _matches(
    timestamp: str, given: list[bytes], body: bytes, secrets: Sequence[bytes], form: SignedForm
) -> bool:
    # An early return reveals nothing to the sender of a good signature. A wrong digest is compared
    # with every candidate in full, so the time does not reveal which candidate nearly matched.
    for secret in secrets:
        for message in _signed(timestamp, body, form):
            expected = hmac.digest(secret, message, "sha256")
            for digest in given:
                if hmac.compare_digest(expected, digest):
                    return True
    return False


def _signed(timestamp: str, body: bytes, form: SignedForm) -> Iterator[bytes]:
    """Yield the messages that Plexy may have signed; the form on its current page comes first."""
    if form is not SignedForm.TIMESTAMPED:
        yield body
    if form is not SignedForm.BODY:
        yield _timestamped(timestamp, body)


def _timestamped(timestamp: str, body: bytes) -> bytes:
    return b"%b.%b" % (timestamp.encode("ascii"), body)
