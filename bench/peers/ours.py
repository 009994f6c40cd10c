"""Defines our own worker, with its default settings, as a program to measure."""

import sys
from collections.abc import Mapping

import msgspec

from bench.program import OrderTotals, Peer, totals_by_currency


class LedgerWorker(Peer):
    """`plexy-ledger worker`."""

    name = peer = "ours"
    title = "plexy-ledger worker"

    def command(self) -> list[str]:
        """Return the command line of the worker."""
        return [sys.executable, "-m", "cli", "worker"]

    def environment(self) -> Mapping[str, str]:
        """Return the addresses, topics and folder; all other settings have their defaults."""
        return {
            "LEDGER_KAFKA_BOOTSTRAP": self.place.bootstrap,
            "LEDGER_TOPIC_PREFIX": self.place.prefix,
            "LEDGER_PARTITIONS": str(self.place.partitions),
            "LEDGER_DATA_DIR": str(self.place.folder / "data"),
            "LEDGER_WEB_PORT": str(self.place.web_port),
        }

    def order_totals(self, document: bytes) -> OrderTotals:
        """Read one of the worker's order documents."""
        order = msgspec.json.decode(document)
        return OrderTotals(order["status"], totals_by_currency(order["totals"]))
