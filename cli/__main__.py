"""`python -m cli` is `plexy-ledger`: how `run` and `demo` start the other programs."""

from plexy_ledger import main

if __name__ == "__main__":
    main()
