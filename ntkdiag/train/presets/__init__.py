"""Presets: everything that a run is made of, as readable files: network, data, process, loss weights and settings."""

from ntkdiag.train.presets.preset import PRESETS, Preset

__all__ = ["PRESETS", "Preset"]
