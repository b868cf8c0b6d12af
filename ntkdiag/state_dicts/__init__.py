"""State dicts, a network's parameters and buffers by name: written, found in checkpoints of any origin, and loaded."""

from __future__ import annotations

from ntkdiag.state_dicts.checkpoint import WeightsTaken
from ntkdiag.state_dicts.weight_files import load_weights, save_weights

__all__ = ["WeightsTaken", "load_weights", "save_weights"]
