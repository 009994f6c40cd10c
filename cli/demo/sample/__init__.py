"""Reads the sample that the demo delivers, and its expected outcome, from files written by hand.

``deliveries.json``  the deliveries in the sequence in which they are sent, including each retry
``expected.json``    the refused deliveries, the rejected events, and each order's document
"""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import msgspec

from cli.errors import WrongOptionError

# A delivery is signed correctly, with a wrong secret, not at all, or with an old timestamp.
Signature = Literal["good", "forged", "missing", "stale"]


class SampleDelivery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One delivery: its body as JSON, or as ``text`` if it is not JSON."""

    name: str
    body: dict[str, Any] | None = None
    text: str = ""
    signature: Signature = "good"

    @property
    def raw(self) -> bytes:
        """The body as it is sent."""
        return self.text.encode() if self.body is None else msgspec.json.encode(self.body)


class RefusedDelivery(msgspec.Struct, frozen=True, order=True, forbid_unknown_fields=True):
    """The name of a delivery that the ingress refuses, and the answer's status and code."""

    delivery: str
    status: int
    code: str


class RejectedEvent(msgspec.Struct, frozen=True, order=True, forbid_unknown_fields=True):
    """A record of ``plexy.rejected``: its key as text, and the reason."""

    key: str
    reason: str


class SampleOutcome(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The outcome of all deliveries; ``orders`` maps an order's id to its document.

    The documents do not contain the partitions and offsets of the events.
    """

    refused: tuple[RefusedDelivery, ...]
    rejected: tuple[RejectedEvent, ...]
    orders: dict[str, Any]


def deliveries() -> Sequence[SampleDelivery]:
    """Return the sample's deliveries in the sequence in which they are sent."""
    content = (files(__package__) / "deliveries.json").read_bytes()
    return msgspec.json.decode(content, type=list[SampleDelivery])


def expected(file: Path | None = None) -> SampleOutcome:
    """Return the expected outcome from ``file``; the default is the sample's own file."""
    source = file or files(__package__) / "expected.json"
    try:
        return msgspec.json.decode(source.read_bytes(), type=SampleOutcome)
    except msgspec.DecodeError as error:
        raise WrongOptionError(f"{source} is not an expected outcome: {error}") from error


def without_places(document: dict[str, Any]) -> dict[str, Any]:
    """Return an order's document without the places of its events and notes.

    The places may differ between two runs.
    """
    payments = [
        {**payment, "events": [_without_place(event) for event in payment["events"]]}
        for payment in document["payments"]
    ]
    notes = [_without_place(note) for note in document.get("notes", ())]
    return {**document, "payments": payments, **({"notes": notes} if notes else {})}


def _without_place(event: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name not in {"partition", "offset"}}
