"""Lets ``python -m cli`` run ``plexy-ledger``; ``run`` and ``demo`` start programs this way."""

from plexy_ledger import main

if __name__ == "__main__":
    main()
