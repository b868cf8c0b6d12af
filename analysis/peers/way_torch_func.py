"""PyTorch's own way: Jacobian contraction by torch.func, after its "Neural Tangent Kernels" tutorial."""

from __future__ import annotations

from analysis.peers.cases import load_case
from analysis.ways import Case, Way, torch_func

__all__ = ["load_case", "prepare"]


def prepare(case: Case) -> tuple[Way, int]:
    """The kernel, and how many parameters it covers."""
    return torch_func(case), case.parameters
