"""Fuzzes ingress with hostile requests and connections, during honest deliveries.

``inputs`` draws requests from a seed, ``answers`` judges the answers, ``attacks`` has the hostile
connections, ``honest`` sends the honest deliveries, and ``target`` starts ingress and measures the
memory of ingress. ``campaign`` combines these modules, and ``__main__`` runs the campaign.
`make fuzz` starts ``__main__``.
"""
