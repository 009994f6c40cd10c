"""The programs that are measured, one module each, and what they are made of; see ``table``."""
