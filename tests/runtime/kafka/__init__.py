"""Tests of what every program needs around the ledger."""
