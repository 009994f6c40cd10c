"""Trust: the check that a record of the log was signed by Plexy and was fresh when it arrived.

A record that a bearer token authenticated has no signature. Only ingress saw the token, so such a
record is trusted if the ledger accepts the Pay API. It is reported as ``bearer``.

Input: records with the headers that ingress stored next to each body, and the endpoint's secrets.
Output: the reason why a record's signature is not good, or ``None``. Invariant: the result depends
only on the record and the secrets, so it is the same at any later time.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from ledger.dialects import is_bearer
from ledger.records import SignedRecord
from ledger.signature import DEFAULT_TOLERANCE_S, SignedForm, verify

# Ingress writes four headers, and a rejection has ten. A stranger's record may have millions
# of headers, so only the first headers are read.
MAX_HEADERS: Final = 100


class Trust(msgspec.Struct, frozen=True, kw_only=True):
    """The rules for a good signature; ``since`` is the first offset to check, by partition.

    If ``expects_bearer``, a record is trusted if its headers say that it came with a bearer token.
    """

    secrets: tuple[bytes, ...]
    form: SignedForm = SignedForm.EITHER
    tolerance_s: float = DEFAULT_TOLERANCE_S
    expects_bearer: bool = False
    since: Mapping[int, int] = {}

    def fault(self, record: SignedRecord) -> str | None:
        """Return why a record's signature is not good; ``None`` if it is good or not checked.

        The time in the signature is compared with the time of arrival that ingress recorded.
        """
        if record.offset < self.since.get(record.partition, 0):
            return None
        if is_bearer(record.headers):
            return None if self.expects_bearer else "bearer_not_expected"
        headers = dict(record.headers[:MAX_HEADERS])
        # A header that a stranger wrote may have no value.
        arrived = headers.get("received-at-ms") or b""
        if not (arrived.isdigit() and len(arrived) < 16):  # noqa: PLR2004 - its time has this limit
            return "arrival_unknown"
        return verify(
            (headers.get("plexy-signature") or b"").decode("latin-1"),
            record.value or b"",
            secrets=self.secrets,
            now_s=int(arrived) / 1000,
            tolerance_s=self.tolerance_s,
            form=self.form,
        )
