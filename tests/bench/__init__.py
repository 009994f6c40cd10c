"""The measurements: their arithmetic, and the load that they send."""
