"""The commands `rejected list`, `show` and `retry`, for rejected records.

``items`` reads the quarantine and its records, ``rejected`` shows them, and ``retry`` puts items
back after a fix.
"""
