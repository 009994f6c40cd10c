"""The worker, a Faust program that folds the log of record into tables, topics and views.

The data passes through these parts, in this order:

``engine``    fetches records, hands each agent chunks of them, and commits only finished chunks
``dedupe``    reads ``plexy.webhooks``, and writes each event once, keyed by its payment
``payments``  reads ``ledger.events``, and writes payment states, journal entries and snapshots
``orders``    reads ``ledger.payments``, and writes order states and order documents
``views``     serves the states and the documents over HTTP
"""
