"""Weights that are measured again while a network trains."""
