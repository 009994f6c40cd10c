"""Ingress: Plexy's deliveries over HTTP into the log of record, acknowledged only once kept.

The path: ``server`` → ``connection`` → ``app`` → ``webhooks`` (``body`` → signature → envelope →
``records``) → ``log`` (``producer``) → Kafka; ``answers`` are what Plexy reads, and ``openapi``
tells of them.
"""
