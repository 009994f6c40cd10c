"""Ingress: Plexy's deliveries over HTTP into the log of record, acknowledged only once kept.

The path of a delivery: ``server`` → ``connection`` (within ``limits``) → ``webhooks``, through
``direct`` if it arrives whole, else through ``app`` and ``body`` → signature → envelope →
``records`` → ``log`` (``appends``, ``producer``) → Kafka. Plexy reads ``answers``, and ``openapi``
describes them.
"""
