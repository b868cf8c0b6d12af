"""How far a result may be from plain autograd's and still count as rounding."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ntkdiag.kernel.precision import TF32, Precision, computed_in

# Tuned here. The first leaves room for networks that compute in the next lower precision inside, and for sums in another
# order. Below the second, an error does not matter to the kernel.
_OF_PARAMETER: dict[Precision, float] = {
    torch.float64: 1e-5, torch.float32: 0.02, TF32: 0.05, torch.float16: 0.05, torch.bfloat16: 0.1
}  # fmt: skip
_OF_KERNEL: dict[Precision, float] = {
    torch.float64: 1e-12, torch.float32: 1e-6, TF32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 1e-2
}  # fmt: skip


@dataclass(frozen=True)
class Tolerance:
    """Largest difference that still counts as rounding.

    Attributes:
        of_parameter: As a share of |g_i||g_j|, g the gradients with respect to one parameter.
        of_kernel: As a share of |g_i||g_j| of all parameters together.
    """

    of_parameter: float
    of_kernel: float

    def excesses(self, gap: Tensor, norms: Tensor, kernel: Tensor) -> list[float | None]:
        """For each parameter, its largest difference as a share of its size, or None if all of them are rounding.

        Args:
            gap: Sizes of differences, [n, ...].
            norms: |g_i||g_j| of each parameter, [n, ...].
            kernel: |g_i||g_j| of all parameters, [...].
        """
        wrong = ~(gap <= self.of_parameter * norms + self.of_kernel * kernel).flatten(1).all(1)
        sizes = torch.maximum(norms, self.of_kernel * kernel)
        shares = (gap / sizes).masked_fill(gap == 0, 0).flatten(1).amax(1)
        return [share if bad else None for share, bad in zip(shares.tolist(), wrong.tolist(), strict=True)]


def tolerance_of(tensors: Iterable[Tensor]) -> Tolerance:
    """What rounding may do in the lowest precision that a network is seen to compute in.

    Args:
        tensors: Its parameters, inputs and outputs.
    """
    seen: set[Precision] = set()
    for tensor in tensors:
        seen.add(computed_in(tensor))
        if torch.is_autocast_enabled(tensor.device.type):
            seen.add(torch.get_autocast_dtype(tensor.device.type))
    lowest = max((p for p in seen if isinstance(p, str) or p.is_floating_point), key=_unit)
    return Tolerance(_OF_PARAMETER.get(lowest, 0.1), _OF_KERNEL.get(lowest, 1e-2))


def _unit(precision: Precision) -> float:
    """Distance from 1 to the next number; just below float16's for TF32, which has its mantissa and a wider range."""
    if isinstance(precision, str):
        return 0.99 * torch.finfo(torch.float16).eps
    return torch.finfo(precision).eps


def differs(share: float) -> str:
    """The reason to pass over a result that is off by this share of its size."""
    by = f"by {share:.2g} of its size" if math.isfinite(share) else "and is not finite, or should be zero"
    return f"differs from plain autograd {by}"
