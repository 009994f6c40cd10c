"""A fuzzer for ingress: hostile requests, hostile connections, and honest deliveries beside them.

``inputs`` draws requests from a seed, ``answers`` judges what comes back, ``attacks`` does to a
server what no good client does, ``honest`` delivers meanwhile, ``target`` starts the ingress and
watches its memory, and ``__main__`` runs it all: `make fuzz`.
"""
