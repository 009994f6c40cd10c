"""Finds when certificates expire: our own certificates, and those that the brokers present.

Input: the text of a certificate file, or a connection to a broker. Output: the earliest expiry in
the file, or in the chain from the broker's certificate to its root. Invariant: a broker's expiry
comes from the newest connection to that broker, since an old connection never shows a renewed
certificate.
"""

import asyncio
import base64
import re
import ssl
import time
from asyncio import Transport
from collections.abc import Container, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal

Side = Literal["ours", "brokers"]

_PEM: Final = re.compile(rb"-----BEGIN CERTIFICATE-----\s(.*?)-----END CERTIFICATE-----", re.DOTALL)
# In DER (X.690), the first tag marks a certificate's optional version. The second tag marks a time
# in the older of the two formats.
_VERSION: Final = 0xA0
_UTC_TIME: Final = 0x17
# OpenSSL's code for an expired certificate.
_HAS_EXPIRED: Final = 10
_PRESENTED_WITHIN_S: Final = 3.0
# If the first byte of a length in DER is below this value, the byte is the length. Otherwise, the
# byte says how many of the following bytes contain the length.
_LONG: Final = 0x80

_seen: dict[str, float] = {}


def expires_s(pem: bytes) -> float:
    """Return the earliest Unix time at which a certificate of a PEM file expires.

    The ``ssl`` module decodes only the certificates that a peer presents, so this module decodes
    DER itself. Raises ``ValueError`` if the file contains no certificate.
    """
    found = [_not_after_s(base64.b64decode(each)) for each in _PEM.findall(pem)]
    if not found:
        raise ValueError("expected a PEM file that begins with a certificate")
    return min(found)


def note(broker: str, transport: Transport) -> None:
    """Record the earliest expiry in the chain of the certificate that a broker has just shown."""
    presented: dict[str, Any] | None = transport.get_extra_info("peercert")
    if presented:
        trusted = transport.get_extra_info("ssl_object").context.get_ca_certs()
        _seen[broker] = _chain_expires_s(presented, trusted)


async def note_refused(host: str, port: int, error: ssl.SSLCertVerificationError) -> None:
    """Record the expiry of a certificate that was refused because it has expired.

    The ``ssl`` module does not show a refused certificate. So this function connects once more. It
    does not check the certificate, and sends nothing.
    """
    if error.verify_code != _HAS_EXPIRED:
        return
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        async with asyncio.timeout(_PRESENTED_WITHIN_S):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
    except (OSError, TimeoutError):
        return
    der = writer.transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.transport.abort()
    at_s = _not_after_s(der)
    if at_s < time.time():
        _seen[f"{host}:{port}"] = at_s


def _chain_expires_s(presented: Mapping[str, Any], trusted: Sequence[Mapping[str, Any]]) -> float:
    """Return the earliest expiry in a chain, from the presented certificate up to its root.

    If an authority has two certificates, for example during its renewal, the later expiry counts.
    The chain is followed up to the first issuer that is not among the trusted authorities.
    """
    found = [ssl.cert_time_to_seconds(presented["notAfter"])]
    names, issuer = {presented["subject"]}, presented["issuer"]
    while issuer not in names:
        names.add(issuer)
        authorities = [each for each in trusted if each["subject"] == issuer]
        if not authorities:
            break
        latest = max(authorities, key=lambda each: ssl.cert_time_to_seconds(each["notAfter"]))
        found.append(ssl.cert_time_to_seconds(latest["notAfter"]))
        issuer = latest["issuer"]
    return min(found)


def forget_others(brokers: Container[str]) -> None:
    """Forget brokers that are no longer part of the cluster."""
    for broker in [each for each in _seen if each not in brokers]:
        del _seen[broker]


def of_brokers() -> dict[str, float]:
    """Return when each broker's certificate expires."""
    return dict(_seen)


def _not_after_s(der: bytes) -> float:
    """Return the end of a certificate's validity (RFC 5280, 4.1)."""
    (_, certificate), *_ = _parts(der)
    (_, signed), *_ = _parts(certificate)
    # After the optional version, the first fields are serial number, algorithm, issuer and
    # validity.
    fields = [content for tag, content in _parts(signed) if tag != _VERSION]
    _, (tag, end) = _parts(fields[3])
    form = "%y%m%d%H%M%SZ" if tag == _UTC_TIME else "%Y%m%d%H%M%SZ"
    return datetime.strptime(end.decode(), form).replace(tzinfo=UTC).timestamp()


def _parts(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the tag and the content of each element of a DER sequence."""
    at = 0
    while at < len(content):
        tag, length, at = content[at], content[at + 1], at + 2
        if length >= _LONG:
            size = length - _LONG
            length, at = int.from_bytes(content[at : at + size]), at + size
        yield tag, content[at : at + length]
        at += length
