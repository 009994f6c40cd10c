"""Tests of the parts that every program needs around the ledger."""
