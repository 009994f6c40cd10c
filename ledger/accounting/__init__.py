"""Sums and exports of the journal, as pure functions.

``activity``    what was posted to each account, by currency and day
``snapshot``    the journal at one moment: all entries, sorted, and the standing entries
``settlement``  one of Plexy's payout files, matched with the standing entries
"""
