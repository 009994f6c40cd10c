"""The commands of ``plexy-ledger``, grouped by subject."""

from cli.commands import (  # noqa: I001 - in the order in which `--help` lists them
    programs,
    deliveries,
    checks,
    quarantine,
    files,
    about,
)
from cli.commands.declare import app

__all__ = ["about", "app", "checks", "deliveries", "files", "programs", "quarantine"]
