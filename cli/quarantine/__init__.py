"""What was rejected: the commands `rejected list`, `show` and `retry`.

``items`` reads the quarantine with the records behind it; ``rejected`` shows it, ``retry`` puts
back what is good after a fix.
"""
