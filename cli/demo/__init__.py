"""Delivers sample webhooks to a temporary ledger, and compares the outcome with the sample's."""
