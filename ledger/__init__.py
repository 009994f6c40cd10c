"""What happened and what follows from it: the ledger's rules, pure.

Nothing in this package does I/O, reads a clock, an environment or a random number: the same
events always give the same payments, orders, entries and bytes. ``import-linter`` holds that.
In the order of the data's path:

``signature``   is this delivery Plexy's?
``envelope``    is it an event at all?
``events``      what does it say, in the ledger's terms?
``payments``    the facts seen under one payment, and what follows from them
``journal``     the balanced entries that a payment's facts post
``orders``      an order as its payments' snapshots
``truth``       the same from the log alone, to compare with: ``audit``, ``journal_audit``
``published``   what the schemas of published records say of their fields
``wire``        the bytes of each topic and table
``topics``      the topics' names and settings
"""
