"""Tests of the measurements: their arithmetic, and the load that they send."""
