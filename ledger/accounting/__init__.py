"""Sums and exports of the journal, as pure functions.

``activity``    what was posted to each account, by currency and day
``snapshot``    the journal at one moment: its entries in order, and those that stand
``settlement``  one of Plexy's payout files, matched with the standing entries
"""
