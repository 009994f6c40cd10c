"""A fuzzer for ingress: hostile requests and connections, next to honest deliveries.

``inputs`` draws requests from a seed, ``answers`` judges the answers, ``attacks`` has the hostile
connections, ``honest`` delivers meanwhile, ``target`` starts the ingress and watches its memory,
and ``__main__`` runs everything: `make fuzz`.
"""
