"""Runs bookkeeping programs for the tests of the exports, and reads the programs' balances."""

import csv
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path

import pytest

BEAN_CHECK = Path(sys.executable).parent / "bean-check"
BEAN_QUERY = BEAN_CHECK.with_name("bean-query")

Balances = dict[tuple[str, str], Decimal]
"""The balance of each account and currency, in major units; zero balances are left out."""


def in_major_units(sums: dict[tuple[str, str], int], digits_of: Mapping[str, int]) -> Balances:
    """Convert the ledger's balances to the form that the bookkeeping programs use."""
    return {
        (account, currency): Decimal(amount).scaleb(-digits_of[currency])
        for (account, currency), amount in sums.items()
        if amount
    }


def hledger(*arguments: str | Path, text: str | None = None) -> str:
    """Run hledger in the C locale, and return its output; raise if hledger fails."""
    if shutil.which("hledger") is None:
        pytest.skip("hledger is not installed (Debian: apt-get install hledger)")
    done = subprocess.run(
        ["hledger", *map(str, arguments)],  # noqa: S607
        input=text,
        env=os.environ | {"LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def hledger_balances(file: Path) -> Balances:
    """Return hledger's balances."""
    options = ("--no-total", "--layout", "bare", "--output-format", "csv")
    rows = csv.DictReader(io.StringIO(hledger("--file", file, "balance", *options)))
    sums = {(row["account"], row["commodity"]): Decimal(row["balance"]) for row in rows}
    return {key: amount for key, amount in sums.items() if amount}


def beancount_balances(file: Path) -> Balances:
    """Return the balances of Beancount's bean-query, with our spelling of the accounts."""
    query = "SELECT account, currency, sum(number) AS balance GROUP BY account, currency"
    done = subprocess.run(
        [BEAN_QUERY, "--format", "csv", file, query],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    rows = csv.DictReader(io.StringIO(done.stdout))
    sums = {
        (row["account"].lower(), row["currency"]): Decimal(row["balance"].strip()) for row in rows
    }
    return {key: amount for key, amount in sums.items() if amount}
