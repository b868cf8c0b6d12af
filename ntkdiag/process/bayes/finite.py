"""A finite set of points: the minimiser of the training loss, which memorises the training points.

The posterior over the points is a softmax of −SNR ‖x/α − p‖²/2. It is accumulated block by block with a
running maximum, so the whole [samples, points] matrix is never formed.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ntkdiag.errors import InputError
from ntkdiag.process.bayes.oracle import PosteriorOracle

# Most elements of an intermediate: 32 MiB in float64.
_BLOCK = 2**22
# Smallest α and σ that are used, so that squares and their ratio are finite in float64.
_TINY = 1e-100
# Rounding error of a logit that is accepted for speed: a relative 1e-9 of each posterior probability.
_LOGIT_ERROR = 1e-9


class FiniteOracle(PosteriorOracle):
    """x0 is one of the given points, each equally likely.

    Args:
        points: [M, *shape], floating point; kept in their dtype and converted to float64 block by block.

    Raises:
        InputError: no points.
    """

    name = "finite"
    label = "memorises the training set"

    def __init__(self, points: Tensor) -> None:
        if points.ndim < 2 or points.numel() == 0 or not points.is_floating_point():
            raise InputError(
                "points",
                expected="floating-point [M, ...], M at least 1",
                got=f"{points.dtype} {list(points.shape)}",
            )
        super().__init__(tuple(points.shape[1:]))
        self._points = points.detach().cpu().flatten(1)
        self._center = self._points.mean(0, dtype=torch.float64)
        self._largest_square = (
            float(torch.linalg.vector_norm(self._points, dim=1, dtype=torch.float64).max()) ** 2
        )

    def _sample(self, count: int, generator: torch.Generator) -> Tensor:
        choice = torch.randint(len(self._points), (count,), generator=generator)
        return self._points[choice].double()

    def _moments(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        rows = max(1, math.isqrt(_BLOCK) // 2)
        parts = [
            self._block_moments(*block)
            for block in zip(x.split(rows), alpha.split(rows), sigma.split(rows), strict=True)
        ]
        return torch.cat([mean for mean, _ in parts]), torch.cat([spread for _, spread in parts])

    def _block_moments(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Running softmax: `largest` logit so far, and sums of weights, points and squared distances."""
        alpha, sigma = alpha.clamp(min=_TINY), sigma.clamp(min=_TINY)
        guess, snr = x / alpha, (alpha / sigma) ** 2
        rows, mode = len(x), self._distance_mode(guess, snr)
        largest = torch.full((rows, 1), -math.inf, dtype=torch.float64)
        weight = torch.zeros(rows, 1, dtype=torch.float64)
        squared = torch.zeros_like(weight)
        weighted = torch.zeros(rows, self.dimensions, dtype=torch.float64)
        for block in self._points.split(max(1, _BLOCK // max(rows, self.dimensions))):
            points = block.double()
            logits = -snr / 2 * torch.cdist(guess, points, compute_mode=mode) ** 2
            top = torch.maximum(largest, logits.max(1, keepdim=True).values)
            share, kept = torch.exp(logits - top), torch.exp(largest - top)
            weight = kept * weight + share.sum(1, keepdim=True)
            centred = points - self._center
            weighted = kept * weighted + share @ centred
            squared = kept * squared + share @ (centred**2).sum(1, keepdim=True)
            largest = top
        mean = weighted / weight
        spread = (squared / weight - (mean**2).sum(1, keepdim=True)).clamp(min=0)
        return self._center + mean, spread[:, 0]

    def _distance_mode(self, guess: Tensor, snr: Tensor) -> str:
        """How `torch.cdist` may compute ‖x/α − p‖².

        Expanding the square is a matrix product, many times faster, but its rounding error is that of
        ‖x/α‖² + ‖p‖², which SNR multiplies: at high SNR no digit of the logits would be left.
        """
        rounding = snr * ((guess**2).sum(1, keepdim=True) + self._largest_square)
        if bool((rounding * torch.finfo(torch.float64).eps < _LOGIT_ERROR).all()):
            return "use_mm_for_euclid_dist"
        return "donot_use_mm_for_euclid_dist"
