"""`plexy-ledger prove`: checks an order's proof without the ledger that created the proof.

The command reads a file that was downloaded from ``GET /orders/{id}/proof``, and needs the signing
secrets of the webhook endpoint. It prints each fault and a summary, and opens no connection.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
from rich.console import Console

from cli.errors import WrongOptionError
from cli.printing import counted, counting, line
from cli.settings import ProveSettings
from cli.verification.verify import trust_of
from ledger.deduplication import DAY_MS
from ledger.verification.history import Rules
from ledger.verification.proof import Proof, ProofCheck, check, usual_sequences
from runtime.rules import reading_of

# Folding this many deliveries takes about a second.
_MANY: Final = 40_000


def prove(
    environment: Mapping[str, str],
    file: Path,
    sequences: int | None,
    console: Console,
    *,
    as_json: bool,
) -> bool:
    """Check a proof, and print the result; return whether the whole proof holds."""
    settings = ProveSettings.from_environment(environment)
    proof = _read(file)
    rules = Rules(
        reading=reading_of(settings.order_fields, settings.payment_fields, settings.rules),
        forget_after_ms=settings.forget_after_days * DAY_MS,
        signed_only=settings.verify_signatures == "worker",
    )
    sequences = sequences or usual_sequences(proof)
    with _progress(proof, sequences, Console(stderr=True) if as_json else console) as heard:
        checked = check(proof, trust_of(settings), rules, sequences, heard)
    if as_json:
        document = {"order_id": proof.order_id, **msgspec.to_builtins(checked)}
        sys.stdout.write(json.dumps(document) + "\n")
    else:
        _show(console, proof, checked)
    return not checked.faults


@contextmanager
def _progress(proof: Proof, sequences: int, console: Console) -> Iterator[Callable[[int], None]]:
    """Show the number of folded sequences if folding takes about a second or longer."""
    if len(proof.records) * sequences < _MANY:
        yield lambda _sequences: None
        return
    with counting(console, {"sequences": sequences}, "folding") as heard:
        yield partial(heard, "sequences")


def _read(file: Path) -> Proof:
    try:
        return msgspec.json.decode(file.read_bytes(), type=Proof)
    except OSError as error:
        raise WrongOptionError(f"{file}: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise WrongOptionError(
            f"{file} is not a proof: {error}. Download a proof from `GET /orders/{{id}}/proof`"
        ) from None


def _show(console: Console, proof: Proof, checked: ProofCheck) -> None:
    for fault in checked.faults:
        line(console, f"✗ {fault}", style="red")
    order = proof.order
    state = "no order (its payments have moved away)" if order is None else order.status
    line(console, f"order {proof.order_id}: {state}")
    for currency, totals in (order.totals if order else {}).items():
        line(
            console,
            f"  {currency}: paid {totals.paid}, refunded {totals.refunded}, net {totals.net} "
            "(minor units)",
        )
    deliveries = counted(checked.deliveries, "delivery", "deliveries")
    events = counted(checked.events, "event")
    line(console, f"{deliveries}, {events} counted")
    if checked.signatures is None:
        line(console, "no signature was checked (LEDGER_ALLOW_UNSIGNED=true)", style="yellow")
    else:
        signed = checked.deliveries - checked.bearer
        bad = checked.signatures < signed
        told = f"{checked.signatures} of {counted(signed, 'signature')} good"
        line(console, told, style="red" if bad else "")
    if checked.bearer:
        bearer = counted(checked.bearer, "delivery", "deliveries")
        line(console, f"{bearer} by bearer token, without a signature", style="yellow")
    line(console, f"folded in {checked.sequences} other sequences, with some events twice")
    if checked.faults:
        faults = counted(len(checked.faults), "fault")
        line(console, f"{faults}: the proof does not hold", style="bold red")
    elif checked.signatures is not None:
        line(console, "The whole proof holds.", style="bold green")
    else:
        line(console, "The proof holds, but no signature was checked.", style="bold yellow")
