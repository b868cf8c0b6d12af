"""Alignment of a network's features with those of a small frozen encoder of clean samples, beside the denoising loss."""
