"""Weights from a measurement: which scores there are, and how a score becomes a weight."""
