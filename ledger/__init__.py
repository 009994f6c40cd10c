"""The ledger's rules, as pure functions.

Nothing in this package does I/O or reads a clock, an environment or a random number: the same
events always give the same payments, orders, entries and bytes. ``import-linter`` checks the
imports. The main modules, in the order of the data's path:

``signature``   the check that a delivery comes from Plexy
``envelope``    the fields that every event has
``events``      an event in the ledger's terms
``payments``    the facts seen under one payment, and the state they produce
``journal``     the balanced entries that a payment's facts post
``orders``      an order as its payments' snapshots
``verification``  checks of the ledger's state against the log of record
``accounting``  sums and exports of the journal
``published``   the annotations from which the schemas of published records are generated
``wire``        the bytes of each topic and table
``topics``      the topics' names and settings
"""
