"""Sums and exports of the journal: pure, as the rules are.

``activity``    what was posted to each account, by currency and day
``snapshot``    the journal at one moment: its entries in order, and those that stand
``settlement``  a payout file of Plexy's, matched with the standing entries
"""
