"""Lets ``python -m cli`` run ``plexy-ledger``.

The commands ``run``, ``demo`` and ``rebuild`` start their programs with ``python -m cli``.
"""

from plexy_ledger import main

if __name__ == "__main__":
    main()
