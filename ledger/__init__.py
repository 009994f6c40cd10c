"""The ledger's rules, as pure functions.

No code in this package does I/O, or reads a clock, the environment or a random number. So the same
events always give the same payments, orders, entries and bytes. ``import-linter`` checks the
imports. The main modules, along the path of the data:

``signature``   the check that a delivery comes from Plexy
``envelope``    the fields that every event has
``events``      an envelope, read as a fact: an event that the ledger counts
``payments``    the facts about one payment, and the state that they produce
``journal``     the balanced entries that a payment's facts post
``orders``      the latest snapshots of an order's payments, and the order's document
``verification``  checks of the ledger's state against the log of record
``accounting``  sums and exports of the journal
``published``   the annotations from which the schemas of published records are generated
``wire``        the bytes of each topic and table
``topics``      the topics' names and settings
"""
