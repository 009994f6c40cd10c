"""Ingress' tests."""
