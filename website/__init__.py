"""The documentation site: the code with which `make docs` adds to the pages in docs/."""
