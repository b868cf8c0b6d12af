"""neural-tangents by its implementation JACOBIAN_CONTRACTION."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from analysis.peers.neural_tangents_kernel import Exported, kernel_by, load_case

__all__ = ["load_case", "prepare"]


def prepare(case: Exported) -> tuple[Callable[[], Any], int]:
    """The kernel, and how many parameters it covers."""
    return kernel_by(case, "JACOBIAN_CONTRACTION")
