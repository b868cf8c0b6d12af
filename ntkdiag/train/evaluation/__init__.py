"""Evaluation of a trained network: its loss in every bucket, and the quality of its samples."""
