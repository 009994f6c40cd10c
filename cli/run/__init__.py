"""Starts the programs of a ledger on this machine, supervises them, and stops them."""
