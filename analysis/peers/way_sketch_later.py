"""This package's sketches in later calls of a measurement: not checked again, and with what the first found out."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from analysis.peers import way_sketch
from analysis.ways import Case
from ntkdiag.kernel import CheckOnce

__all__ = ["prepare"]


def prepare(case: Case, size: int, seed: int = 0) -> tuple[Callable[[], Tensor], int]:
    """The kernel from sketches of k = `size`, and how many parameters it covers."""
    return way_sketch.prepare(case, size, seed, CheckOnce())
