"""Ingress: Plexy's deliveries over HTTP into the log of record, acknowledged only once kept.

The path: ``server`` → ``connection`` → ``webhooks``, by ``direct`` for what arrives whole, else by
``app`` and ``body`` → signature → envelope → ``records`` → ``log`` (``appends``, ``producer``) →
Kafka; ``answers`` are what Plexy reads, and ``openapi`` tells of them.
"""
