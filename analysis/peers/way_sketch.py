"""This package's sketches, as users call them: k × k numbers for the gradient of each matrix."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

import ntkdiag as nd
from analysis.ways import Case
from ntkdiag.kernel import CheckOnce

__all__ = ["prepare"]


def prepare(
    case: Case, size: int, seed: int = 0, check: bool | CheckOnce = True
) -> tuple[Callable[[], Tensor], int]:
    """The kernel from sketches of k = `size`, and how many parameters it covers."""

    def kernel() -> Tensor:
        return nd.gram_of(
            case.module,
            case.inputs,
            case.probes,
            engine="sketch",
            sketch=size,
            seed=seed,
            check=check,
        )[0]

    return kernel, case.parameters
