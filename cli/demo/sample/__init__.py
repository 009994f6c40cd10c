"""The sample that the demo delivers, and what must come of it: two files, both written by hand.

``deliveries.json``  the deliveries in the order in which they are sent
``expected.json``    what the ingress refuses, what the worker rejects, and each order's document

Out: both as values. A delivery that is sent again is written again, as Plexy sends it again.
"""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import msgspec

from cli.errors import WrongOptionError

# How a delivery is signed: as Plexy does, by somebody without the secret, not at all, or long ago.
Signature = Literal["good", "forged", "missing", "stale"]


class SampleDelivery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One delivery: its body as JSON, or as ``text`` where it is none."""

    name: str
    body: dict[str, Any] | None = None
    text: str = ""
    signature: Signature = "good"

    @property
    def raw(self) -> bytes:
        """The body as it is sent."""
        return self.text.encode() if self.body is None else msgspec.json.encode(self.body)


class Refusal(msgspec.Struct, frozen=True, order=True, forbid_unknown_fields=True):
    """A delivery that the ingress refuses, by its name, with the answer's status and code."""

    delivery: str
    status: int
    code: str


class Rejected(msgspec.Struct, frozen=True, order=True, forbid_unknown_fields=True):
    """A record of ``plexy.rejected``: its key as text, and the reason."""

    key: str
    reason: str


class Outcome(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What comes of the deliveries; orders are documents by id, without their places in the log."""

    refused: tuple[Refusal, ...]
    rejected: tuple[Rejected, ...]
    orders: dict[str, Any]


def deliveries() -> Sequence[SampleDelivery]:
    """Return the sample's deliveries in the order in which they are sent."""
    content = (files(__package__) / "deliveries.json").read_bytes()
    return msgspec.json.decode(content, type=list[SampleDelivery])


def expected(file: Path | None = None) -> Outcome:
    """Return the outcome that the sample must have, from another file if one is named."""
    source = file or files(__package__) / "expected.json"
    try:
        return msgspec.json.decode(source.read_bytes(), type=Outcome)
    except msgspec.DecodeError as error:
        raise WrongOptionError(f"{source} is no expected outcome: {error}") from error


def without_places(document: dict[str, Any]) -> dict[str, Any]:
    """Return an order's document without its events' partitions and offsets.

    Those are Kafka's choice, not the sample's.
    """
    payments = [
        {**payment, "events": [_without_place(event) for event in payment["events"]]}
        for payment in document["payments"]
    ]
    return {**document, "payments": payments}


def _without_place(event: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name not in {"partition", "offset"}}
