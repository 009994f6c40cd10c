"""Deliver a sample of webhooks to a ledger of its own, and compare the orders with the sample."""
