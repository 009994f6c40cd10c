"""Ingress receives Plexy's deliveries over HTTP, and acknowledges a delivery once the log has it.

The path of a delivery: ``server`` → ``connection`` (within ``limits``) → ``webhooks`` (directly if
the delivery arrives whole, otherwise through ``app`` and ``body``) → signature → envelope →
``records`` → ``log`` (``appends``, ``producer``) → Kafka. ``answers`` contains the responses, which
``openapi`` describes.
"""
