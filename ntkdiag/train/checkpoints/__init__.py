"""Checkpoints of a training run, and its folder."""
