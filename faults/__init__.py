"""Faults, in a run that anyone can repeat: `python -m faults`, or `make faults`."""
