"""Provides events, continuous deliveries and a call of `verify` to tests of the ledger's checks."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tests.kafka.answers import deliver
from tests.kafka.harness import event, run


def history() -> list[dict[str, Any]]:
    """Return events of orders that have two payments each.

    Refunds come before their payments, and name a payment but no order. One payment moves to a
    different order, and one event is repeated.
    """
    paid = [event(n, merchantReference=f"ord_{n // 2}") for n in range(20)]
    refunds = [
        event(100 + n, "refund.succeeded", id=f"re_{n}", payment_id=f"pay_{n}", amount=9)
        for n in range(5)
    ]
    moved = event(200, id="pay_7", orderReference="ord_moved") | {"created": 1_700_000_000}
    return [*refunds, *paid, moved, paid[3]]


@contextmanager
def deliveries(env: Mapping[str, str], pause_s: float = 0.5) -> Iterator[None]:
    """During the ``with`` block, deliver events about existing and new payments and orders."""
    stopped = threading.Event()

    def go_on() -> None:
        number = 2000
        while not stopped.is_set():
            bodies = [event(number + n, merchantReference=f"ord_{n}") for n in range(50)]
            bodies += [
                event(number + 50 + n, "refund.succeeded", id=f"re_{number}", payment_id="pay_1")
                for n in range(5)
            ]
            deliver(env, *bodies)
            number += 100
            stopped.wait(pause_s)

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def verify(env: Mapping[str, str], *arguments: str, **settings: str) -> tuple[int, str]:
    """Run `verify` with these settings added; return its exit code and its whole output."""
    return run({**env, **settings}, "verify", *arguments)


def named(output: str) -> list[str]:
    """Return the kind and subject of each difference in the output."""
    lines = output.splitlines()
    kinds = ("log_", "record_", "signature_", "seen_", "payment_", "order_", "document_", "entry_")
    found = [line for line in lines if line.startswith((*kinds, "value_", "balance_", "replica_"))]
    # A line about a remedy has a colon directly after the kind. A line about a difference has two
    # spaces there.
    return sorted(line.partition(": ")[0] for line in found if "  " in line.partition(": ")[0])
