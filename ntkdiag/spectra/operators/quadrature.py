"""Stochastic Lanczos quadrature: density of the spectrum and effective rank of an operator from products alone.

Lanczos from a random unit vector v gives a Gauss rule for vᵀ f(A) v, whose mean over vectors is tr f(A) / n. Each vector
gives one estimate, so the spread between vectors is the uncertainty (Ubaru, Chen & Saad 2017). Few large eigenvalues would
make that spread large; `control` takes them out with what the other vectors found.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ntkdiag.confidence import Interval, from_influence, quantile, require_level
from ntkdiag.errors import InputError, require_number, require_positive_int
from ntkdiag.randomness import generator
from ntkdiag.spectra.operators.block_lanczos import TopEigenpairs
from ntkdiag.spectra.operators.control import controlled_rules
from ntkdiag.spectra.operators.product import Apply, ScaledOperator
from ntkdiag.spectra.operators.tridiagonal import project_out, tridiagonalise

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Quadrature:
    """Quadrature rules of several random vectors.

    Attributes:
        nodes, weights: [V, M] float64; a vector's weights sum to 1 and, like its nodes, are padded with 0. They are the
            vector's Gauss rule, corrected by eigenvalues that the other vectors found; so a weight may be negative.
        size: Dimension of the space that the vectors sample: n minus the number of `known` eigenvalues.
        known: Eigenvalues that were deflated, [k]; they enter sums exactly.
        products: Number of operator-vector products.

    Example:
        >>> matrix = torch.diag(torch.linspace(1, 2, 20, dtype=torch.float64))
        >>> rule = nd.spectra.lanczos_quadrature(lambda v: matrix @ v, matrix, 20, vectors=4, steps=6)
        >>> rule.weights.sum(axis=1).round(12), rule.size
        (array([1., 1., 1., 1.]), 20)
    """

    nodes: Array
    weights: Array
    size: int
    known: Array
    products: int

    def sums(self, function: Callable[[Array], Array]) -> Array:
        """Estimate of tr f(A) from each vector, [V]."""
        sums: Array = function(self.known).sum() + self.size * (self.weights * function(self.nodes)).sum(1)
        return sums


def lanczos_quadrature(
    apply: Apply,
    like: Tensor,
    size: int,
    *,
    vectors: int = 8,
    steps: int = 40,
    seed: int = 0,
    known: TopEigenpairs | None = None,
) -> Quadrature:
    """Gauss quadrature of the spectral density by Lanczos from random directions.

    Args:
        apply: The operator, [n, b] → [n, b], symmetric.
        like: A tensor of the operator's dtype and device.
        size: n.
        vectors: V, random unit vectors; all are advanced together, so a step is one product with V columns.
        steps: m, at most n.
        seed: Seed of the vectors, which no other estimator draws.
        known: Converged top eigenpairs to deflate: the rest of the operator varies far less between vectors.

    Returns:
        `Quadrature`.

    Raises:
        InputError: numbers out of range, an operator that is not square, known pairs of another size.
        MeasurementError: products that are NaN, infinite, or too small for their dtype.

    Example:
        >>> matrix = torch.diag(torch.linspace(1, 2, 20, dtype=torch.float64))
        >>> rule = nd.spectra.lanczos_quadrature(lambda v: matrix @ v, matrix, 20, vectors=8, steps=10)
        >>> 29 < 20 * float((rule.weights * rule.nodes).sum(axis=1).mean()) < 31  # the trace is 30
        True
    """
    scaled = ScaledOperator(apply, like, size)
    for name, value in (("vectors", vectors), ("steps", steps)):
        require_positive_int(name, value)
    if known is not None and len(known.vectors) != size:
        raise InputError(
            "known", expected=f"eigenpairs of an operator of size {size}", got=f"size {len(known.vectors)}"
        )
    top = like.new_empty(size, 0) if known is None else known.vectors
    values = np.empty(0) if known is None else known.values.numpy()
    left = size - top.shape[1]
    if left == 0:
        return Quadrature(np.zeros((vectors, 1)), np.zeros((vectors, 1)), 0, values, 0)
    random = torch.randn(size, vectors, generator=generator(seed, "quadrature"), dtype=torch.float64)
    start = project_out(random.to(like), top)
    found = tridiagonalise(scaled, start / start.norm(dim=0), min(steps, left), top)
    nodes, weights = controlled_rules(found, left)
    return Quadrature(nodes * scaled.unit, weights, left, values, scaled.products)


def entropy_effective_rank(rule: Quadrature, level: float = 0.9) -> Interval:
    """exp(−Σ p ln p), p = e/Σe, from tr A and tr A ln A of the same vectors.

    −Σ p ln p = ln tr A − tr(A ln A) / tr A; the interval is that of the logarithm, by the delta method over vectors.

    Returns:
        The interval covers the operator's own effective rank; quadrature with too few steps blurs close eigenvalues
        and overstates it slightly.

    Example:
        >>> matrix = torch.eye(10, dtype=torch.float64)
        >>> rule = nd.spectra.lanczos_quadrature(lambda v: matrix @ v, matrix, 10, vectors=3, steps=1)
        >>> round(nd.spectra.entropy_effective_rank(rule).value, 6)
        10.0
    """
    largest = max((float(part.max()) for part in (rule.nodes, rule.known) if part.size), default=0.0)
    unit = largest if largest > 0 else 1.0  # the rank has no unit, and squares may leave the range of float64
    traces = rule.sums(lambda e: np.clip(e / unit, 0, None))
    entropies = rule.sums(lambda e: _e_ln_e(e / unit))
    t, h = float(traces.mean()), float(entropies.mean())
    vectors = len(traces)
    method = f"Lanczos quadrature, {vectors} vectors × {rule.nodes.shape[1]} steps, log"
    if t <= 0:
        return Interval(0.0, 0.0, 0.0, 0.0, level, method)
    log_rank = math.log(t) - h / t
    influence = traces / t - entropies / t + h * traces / t**2
    if vectors < 2:
        return Interval(math.exp(log_rank), math.nan, math.nan, math.nan, level, method)
    return from_influence(math.exp(log_rank), influence, level, method)


def density(
    rule: Quadrature, grid: Array, width: float = 0.15, level: float = 0.9
) -> tuple[Array, Array, Array]:
    """Eigenvalue density per unit ln e, with a band over vectors.

    Args:
        rule: See `lanczos_quadrature`.
        grid: ln e at which to evaluate, [G].
        width: Standard deviation of the Gaussian each node is smeared to, in ln e.
        level: Nominal coverage of the band.

    Returns:
        density [G], low [G] ≥ 0, high [G]; the integral over ln e is the number of eigenvalues above zero.

    Raises:
        InputError: a grid that is no vector of finite numbers, a width or level out of range.

    Example:
        >>> matrix = torch.eye(10, dtype=torch.float64)
        >>> rule = nd.spectra.lanczos_quadrature(lambda v: matrix @ v, matrix, 10, vectors=3, steps=1)
        >>> value, low, high = nd.spectra.density(rule, np.linspace(-1, 1, 201))
        >>> round(float(value.sum() * 0.01), 6)  # ten eigenvalues at ln 1
        10.0
    """
    require_number("width", width, above=0)
    require_level(level)
    if np.ndim(grid) != 1 or not np.isfinite(grid).all():
        raise InputError("grid", expected="a vector [G] of finite numbers", got=f"shape {np.shape(grid)}")
    positive = rule.nodes > 0
    logs = np.log(np.where(positive, rule.nodes, 1.0))
    mass = np.where(positive, rule.weights, 0.0) * rule.size
    bumps = np.exp(-0.5 * ((grid[:, None, None] - logs) / width) ** 2) / (width * math.sqrt(2 * math.pi))
    each = (bumps * mass).sum(2)  # [G, V]
    top = np.log(rule.known[rule.known > 0])
    exact = np.exp(-0.5 * ((grid[:, None] - top) / width) ** 2).sum(1) / (width * math.sqrt(2 * math.pi))
    each = each + exact[:, None]
    mean, vectors = each.mean(1), each.shape[1]
    if vectors < 2:
        return mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan)
    reach = quantile(level, vectors - 1) * each.std(1, ddof=1) / math.sqrt(vectors)
    return mean, np.clip(mean - reach, 0, None), mean + reach


def _e_ln_e(e: Array) -> Array:
    positive = e > 0
    return np.where(positive, e * np.log(np.where(positive, e, 1.0)), 0.0)
