"""Tests of the benchmarks: their arithmetic, and the load that they send."""
