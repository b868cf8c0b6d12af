"""torch.func again, with attention from matrix products: fused attention has no batching rule under vmap."""

from __future__ import annotations

from analysis.peers.cases import load_case
from analysis.ways import Case, Way, torch_func

__all__ = ["load_case", "prepare"]


def prepare(case: Case) -> tuple[Way, int]:
    """The kernel, and how many parameters it covers."""
    return torch_func(case, written_out_attention=True), case.parameters
