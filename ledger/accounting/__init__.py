"""Sums and exports of the journal, as pure functions.

``activity``    what was posted to each account, by currency and day
``snapshot``    the journal at one moment: all entries, and the entries that are not reversed
``settlement``  one of Plexy's payout files, matched with the entries that are not reversed
"""
