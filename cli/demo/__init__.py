"""Delivers sample webhooks to a temporary ledger, and checks the outcome."""
