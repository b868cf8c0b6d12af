"""Trace and trace of the square of an operator from products alone, hence its participation ratio and stable rank.

Hutch++ (Meyer, Musco, Musco & Woodruff 2021): the part of the trace inside a sketched range is summed exactly, and the
rest is averaged over fresh random vectors. These are independent given the sketch, so their spread is a standard error.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ntkdiag.confidence import Interval, quantile, require_level, symmetric
from ntkdiag.errors import MeasurementError, require_int
from ntkdiag.randomness import generator
from ntkdiag.spectra.operators.product import Apply, ScaledOperator

# Trace, trace of the square, participation ratio.
_Moments = tuple[Interval, Interval, Interval]

# Below it a float64 loses digits.
_SMALLEST = sys.float_info.min / sys.float_info.epsilon


@dataclass(frozen=True)
class TraceEstimates:
    """Moments of the spectrum, Σe and Σe², from one set of products.

    Attributes:
        trace: tr A, unbiased.
        square: tr A², unbiased.
        participation_ratio: (tr A)² / tr A²; a ratio of unbiased estimates, biased by O(variance).
        products: Number of operator-vector products.

    Example:
        >>> matrix = torch.eye(6, dtype=torch.float64)
        >>> found = nd.spectra.trace_estimates(lambda v: matrix @ v, matrix, 6)  # 3 · 32 products would be more than 6
        >>> found.trace.value, found.participation_ratio.value, found.products
        (6.0, 6.0, 6)
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
        seed: Seed of the ±1 vectors, which no other estimator draws.

    Returns:
        `TraceEstimates`.

    Raises:
        InputError: fewer than 3 probes, a level out of range, an operator that is not square.
        MeasurementError: products that are NaN, infinite, or too small for their dtype; a tr A² that float64 cannot
            represent.

    Example:
        >>> matrix = torch.diag(torch.arange(1.0, 101, dtype=torch.float64))
        >>> found = nd.spectra.trace_estimates(lambda v: matrix @ v, matrix, 100, probes=20)
        >>> found.trace.low < 5050 < found.trace.high, found.products
        (True, 60)
    """
    scaled = ScaledOperator(apply, like, size)
    require_int("probes", probes, at_least=3)
    require_level(level)
    if 3 * probes >= size:
        trace, square, ratio = _exact(scaled(torch.eye(size).to(like)), level)
    else:
        trace, square, ratio = _sampled(scaled, like, size, probes, level, seed)
    unit = scaled.unit
    if square.value > 0 and not _SMALLEST < square.value * unit * unit < math.inf:
        raise MeasurementError(
            f"operator: expected a trace of the operator's square that float64 can represent; got an operator of size "
            f"{unit:.1e}. Divide it by a constant near its trace: the participation ratio stays the same."
        )
    return TraceEstimates(_times(trace, unit), _times(square, unit * unit), ratio, scaled.products)


def _sampled(
    apply: ScaledOperator, like: Tensor, size: int, probes: int, level: float, seed: int
) -> _Moments:
    """Hutch++."""
    random = torch.randint(0, 2, (size, 2 * probes), generator=generator(seed, "Hutch++"))
    signs = (random * 2 - 1).to(like)
    sketch, fresh = signs.split(probes, 1)
    basis = _range(apply(sketch))
    images = apply(basis)  # A Q
    rest = fresh - basis @ (basis.mT @ fresh)
    image = apply(rest)
    captured = (basis * images).sum(), images.square().sum()
    trace = captured[0] + (rest * image).sum(0)
    square = captured[1] + image.square().sum(0)
    return _estimates(trace.double().cpu(), square.double().cpu(), level)


def _times(interval: Interval, factor: float) -> Interval:
    ends = {name: getattr(interval, name) * factor for name in ("value", "low", "high", "stderr")}
    return replace(interval, **ends)


def _range(sketch: Tensor) -> Tensor:
    """An orthonormal basis of the columns' span, without directions that are rounding error."""
    left, singular, _ = torch.linalg.svd(sketch, full_matrices=False)
    floor = singular.max() * torch.finfo(sketch.dtype).eps * max(sketch.shape)
    basis: Tensor = left[:, singular > floor]
    return basis


def _estimates(trace: Tensor, square: Tensor, level: float) -> _Moments:
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
    return moments[0], moments[1], participation


def _exact(matrix: Tensor, level: float) -> _Moments:
    trace, square = float(matrix.double().trace()), float(matrix.double().square().sum())
    ratio = trace**2 / square if square > 0 else 0.0
    parts = [Interval(v, v, v, 0.0, level, "exact") for v in (trace, square, ratio)]
    return parts[0], parts[1], parts[2]
