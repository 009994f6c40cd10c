"""From the log of record to tables, views and topics, on Faust.

In the order of the data's path:

``transport``    hands an agent a chunk of one partition at a time, and commits only what is done
``dedupe``       ``plexy.webhooks``  → each event once, by payment
``payments``     ``ledger.events``   → payment states, journal entries, snapshots by order
``orders``       ``ledger.payments`` → order states and documents
``views``        the states, over HTTP
"""
