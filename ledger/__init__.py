"""The ledger's rules, as pure functions.

Nothing in this package does I/O or reads a clock, an environment or a random number: the same
events always give the same payments, orders, entries and bytes. ``import-linter`` checks the
imports. In the order of the data's path:

``signature``   does this delivery come from Plexy?
``envelope``    is the delivery an event?
``events``      what does the event say, in the ledger's terms?
``payments``    the facts seen under one payment, and the state they produce
``journal``     the balanced entries that a payment's facts post
``orders``      an order as its payments' snapshots
``verification``  the same state derived from the log alone, to compare with
``accounting``  sums and exports of the journal
``published``   the annotations from which the schemas of published records are made
``wire``        the bytes of each topic and table
``topics``      the topics' names and settings
"""
