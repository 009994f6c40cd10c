"""Fuzzes ingress with hostile requests and connections, during honest deliveries.

``inputs`` draws requests from a seed, ``answers`` judges the answers, ``attacks`` has the hostile
connections, ``honest`` delivers meanwhile, ``target`` starts ingress and measures its memory, and
``__main__`` runs everything: `make fuzz`.
"""
