"""The unit of comparison: forward and backward pass of one training step, without a kernel."""

from __future__ import annotations

from analysis.peers.cases import load_case
from analysis.ways import Case, Way, training_step

__all__ = ["load_case", "prepare"]


def prepare(case: Case) -> tuple[Way, int]:
    """The step, and how many parameters it covers."""
    return training_step(case), case.parameters
