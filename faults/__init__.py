"""Breaks a running ledger in repeatable ways: `python -m faults`, or `make faults`."""
