"""Stochastic Lanczos quadrature: density of the spectrum and effective rank of an operator from products alone.

Lanczos from a random unit vector v gives a Gauss rule for vᵀ f(A) v, whose mean over vectors is tr f(A) / n. Each vector
gives one estimate, so the spread between vectors is the uncertainty (Ubaru, Chen & Saad 2017).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ntkdiag.confidence import Interval, from_influence, quantile
from ntkdiag.errors import require_positive_int
from ntkdiag.spectra.operators.block_lanczos import Apply, TopEigenpairs
from ntkdiag.spectra.operators.tridiagonal import gauss_rule, project_out, tridiagonalise

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Quadrature:
    """Gauss rules of several random vectors.

    Attributes:
        nodes, weights: [V, m] float64; a vector's weights sum to 1 and, like its nodes, are padded with 0 where its
            Krylov space closed early.
        size: Dimension of the space that the vectors sample: n minus the number of `known` eigenvalues.
        known: Eigenvalues that were deflated, [k]; they enter sums exactly.
        products: Number of operator-vector products.
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
        seed: Seed of the vectors.
        known: Converged top eigenpairs to deflate: the rest of the operator varies far less between vectors.

    Returns:
        `Quadrature`.
    """
    for name, value in (("vectors", vectors), ("steps", steps)):
        require_positive_int(name, value)
    top = like.new_empty(size, 0) if known is None else known.vectors
    values = np.empty(0) if known is None else known.values.numpy()
    left = size - top.shape[1]
    if left == 0:
        return Quadrature(np.zeros((vectors, 1)), np.zeros((vectors, 1)), 0, values, 0)
    generator = torch.Generator().manual_seed(seed)
    start = project_out(torch.randn(size, vectors, generator=generator, dtype=torch.float64).to(like), top)
    found = tridiagonalise(apply, start / start.norm(dim=0), min(steps, left), top)
    nodes, weights = np.zeros((vectors, found.steps)), np.zeros((vectors, found.steps))
    for v in range(vectors):
        m = found.length(v)
        nodes[v, :m], weights[v, :m] = gauss_rule(found.diagonal[v, :m], found.beside[v, : m - 1])
    return Quadrature(nodes, weights, left, values, vectors * found.steps)


def entropy_effective_rank(rule: Quadrature, level: float = 0.9) -> Interval:
    """exp(−Σ p ln p), p = e/Σe, from tr A and tr A ln A of the same vectors.

    −Σ p ln p = ln tr A − tr(A ln A) / tr A; the interval is that of the logarithm, by the delta method over vectors.

    Returns:
        The interval covers the operator's own effective rank; quadrature with too few steps blurs close eigenvalues
        and overstates it slightly.
    """
    traces = rule.sums(lambda e: np.clip(e, 0, None))
    entropies = rule.sums(_e_ln_e)
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
    """
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
