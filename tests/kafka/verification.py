"""Provides a history, ongoing deliveries, and `verify` to tests of the ledger's own checks."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tests.kafka.answers import deliver
from tests.kafka.harness import event, run


def history() -> list[dict[str, Any]]:
    """Return orders of two payments, refunds that name only a payment, and a payment that moves."""
    paid = [event(n, merchantReference=f"ord_{n // 2}") for n in range(20)]
    refunds = [
        event(100 + n, "refund.succeeded", id=f"re_{n}", payment_id=f"pay_{n}", amount=9)
        for n in range(5)
    ]
    moved = event(200, id="pay_7", orderReference="ord_moved") | {"created": 1_700_000_000}
    return [*refunds, *paid, moved, paid[3]]


@contextmanager
def deliveries(env: Mapping[str, str], pause_s: float = 0.5) -> Iterator[None]:
    """Deliver events of existing payments and orders and of new ones during the block."""
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
    # A line with a remedy has a colon directly after the kind; a difference has two spaces there.
    return sorted(line.partition(": ")[0] for line in found if "  " in line.partition(": ")[0])
