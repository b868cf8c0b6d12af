"""Trace and trace of the square of an operator from products alone, hence its participation ratio and stable rank.

Hutch++ (Meyer, Musco, Musco & Woodruff 2021): the part of the trace inside a sketched range is summed exactly, and the
rest is averaged over fresh random vectors. These are independent given the sketch, so their spread is a standard error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ntkdiag.confidence import Interval, quantile, symmetric
from ntkdiag.errors import require_int
from ntkdiag.spectra.operators.block_lanczos import Apply


@dataclass(frozen=True)
class TraceEstimates:
    """Moments of the spectrum, Σe and Σe², from one set of products.

    Attributes:
        trace: tr A, unbiased.
        square: tr A², unbiased.
        participation_ratio: (tr A)² / tr A²; a ratio of unbiased estimates, biased by O(variance).
        products: Number of operator-vector products.
    """

    trace: Interval
    square: Interval
    participation_ratio: Interval
    products: int


def trace_estimates(
    apply: Apply, like: Tensor, size: int, probes: int = 32, *, level: float = 0.9, seed: int = 0
) -> TraceEstimates:
    """tr A and tr A² by Hutch++, with Student intervals over the fresh vectors.

    With P the projector on the sketched range, tr A = tr P A P + E gᵀ (1 − P) A (1 − P) g, and
    tr A² = ‖A Q‖² + E ‖A (1 − P) g‖²: the products serve both.

    Args:
        apply: The operator, [n, b] → [n, b], symmetric.
        like: A tensor of the operator's dtype and device.
        size: n.
        probes: m vectors for the sketch and m for the rest, 3·m products together. Where 3·m ≥ n the result is exact
            and costs n products.
        level: Nominal coverage of the intervals.
        seed: Seed of the ±1 vectors.

    Returns:
        `TraceEstimates`.

    Raises:
        InputError: fewer than 3 probes.
    """
    require_int("probes", probes, at_least=3)
    if 3 * probes >= size:
        return _exact(apply(torch.eye(size).to(like)), level)
    generator = torch.Generator().manual_seed(seed)
    signs = (torch.randint(0, 2, (size, 2 * probes), generator=generator) * 2 - 1).to(like)
    sketch, fresh = signs.split(probes, 1)
    basis = _range(apply(sketch))
    images = apply(basis)  # A Q
    rest = fresh - basis @ (basis.mT @ fresh)
    image = apply(rest)
    captured = (basis * images).sum(), images.square().sum()
    trace = captured[0] + (rest * image).sum(0)
    square = captured[1] + image.square().sum(0)
    products = 2 * probes + basis.shape[1]
    return _estimates(trace.double().cpu(), square.double().cpu(), level, products)


def _range(sketch: Tensor) -> Tensor:
    """An orthonormal basis of the columns' span, without directions that are rounding error."""
    left, singular, _ = torch.linalg.svd(sketch, full_matrices=False)
    floor = singular.max() * torch.finfo(sketch.dtype).eps * max(sketch.shape)
    basis: Tensor = left[:, singular > floor]
    return basis


def _estimates(trace: Tensor, square: Tensor, level: float, products: int) -> TraceEstimates:
    probes = len(trace)
    means = float(trace.mean()), float(square.mean())
    errors = [float(part.std()) / math.sqrt(probes) for part in (trace, square)]
    name = f"Hutch++ with {probes} fresh vectors"
    ratio = means[0] ** 2 / means[1] if means[1] > 0 else 0.0
    # delta method on ln(t²/q) = 2 ln t − ln q, vector by vector
    influence = (2 * trace / means[0] - square / means[1]) if ratio > 0 else torch.zeros(probes)
    spread = quantile(level, probes - 1)
    reach = spread * float(influence.std()) / math.sqrt(probes)
    participation = Interval(
        ratio,
        ratio * math.exp(-reach),
        ratio * math.exp(reach),
        ratio * reach / spread,
        level,
        f"{name}, log",
    )
    moments = [
        symmetric(mean, error, probes - 1, level, name) for mean, error in zip(means, errors, strict=True)
    ]
    return TraceEstimates(moments[0], moments[1], participation, products)


def _exact(matrix: Tensor, level: float) -> TraceEstimates:
    trace, square = float(matrix.double().trace()), float(matrix.double().square().sum())
    ratio = trace**2 / square if square > 0 else 0.0
    parts = [Interval(v, v, v, 0.0, level, "exact") for v in (trace, square, ratio)]
    return TraceEstimates(parts[0], parts[1], parts[2], len(matrix))
