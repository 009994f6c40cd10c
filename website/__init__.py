"""The site of the documentation: what `make docs` adds to the pages in docs/."""
