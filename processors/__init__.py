"""The worker: folds the log of record into tables, topics and views, on Faust.

The parts, in the order of the data's path:

``engine``       hands each agent one chunk of one partition, and commits only finished chunks
``dedupe``       ``plexy.webhooks``  → each event once, by payment
``payments``     ``ledger.events``   → payment states, journal entries, snapshots by order
``orders``       ``ledger.payments`` → order states and documents
``views``        the states and documents, over HTTP
"""
