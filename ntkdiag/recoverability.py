"""Recoverability: how much of a target the noisy input still tells, by four different rulers.

`amplitude` is a closed form (the ERD score), `bayes_share` (in process.bayes) needs an oracle, `learnability` reads
the kernel's spectrum, and `gradient_signal` asks whether per-sample gradients agree with one another.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ntkdiag.errors import InputError, require_one_of
from ntkdiag.process import target as targets
from ntkdiag.process.schedule import Schedule

CONVENTIONS = ("vp", "raw", "official")
# Eigenvalues below this share of the largest are rounding of a float32 network, not rates.
RESOLUTION = 1e-6


def amplitude(target: str, schedule: Schedule, log_snr: Tensor | float, convention: str = "vp") -> Tensor:
    """RMS amplitude of the part of the target that the input expresses, R_y = √((c_x α)² + (c_ε σ)²).

    The ERD score of arXiv 2605.10790 for y = c_x x0 + c_ε ε.

    Args:
        target: epsilon, x0, v, score, flow or F.
        schedule: The path.
        log_snr: Any shape.
        convention: "vp" divides (α, σ) by √(α²+σ²) first: ε σ, x0 α, v √2 ασ, linear flow 1, and F as v of
            x0/σ_data at log_snr + 2 ln σ_data. "raw" takes the path's own α and σ. "official" is what the authors' code does on
            every path: ε σ, x0 α, v ασ, flow 1 (with α, σ of the path, and 1 where SNR = 0).

    Returns:
        R_y ≥ 0, log_snr's shape.

    Raises:
        InputError: unknown target or convention; score or F under "official", which has no rule for them.
    """
    name = targets.target_name(target)
    require_one_of("convention", convention, CONVENTIONS)
    level = torch.as_tensor(log_snr, dtype=None if isinstance(log_snr, Tensor) else torch.float64)
    if convention == "official":
        return _official(name, schedule, level)
    if convention == "raw":
        c_x, c_epsilon = targets.coefficients(name, schedule, level)
        alpha, sigma = schedule.alpha(level), schedule.sigma(level)
        return torch.hypot(c_x * alpha, c_epsilon * sigma)
    return _variance_preserving(name, schedule, level)


def _variance_preserving(name: str, schedule: Schedule, level: Tensor) -> Tensor:
    if name == "F":
        level = level + 2 * math.log(schedule.sigma_data)
    alpha, sigma = _unit(level)
    if name == "epsilon":
        return sigma
    if name == "x0":
        return alpha
    if name in ("v", "F"):
        return math.sqrt(2) * alpha * sigma
    if name == "score":  # −ε/σ against σε: the same at every noise level
        return torch.ones_like(level)
    c_x, c_epsilon = targets.coefficients(name, schedule, level)
    return torch.hypot(c_x * alpha, c_epsilon * sigma)


def _official(name: str, schedule: Schedule, level: Tensor) -> Tensor:
    alpha, sigma = schedule.alpha(level), schedule.sigma(level)
    by_target = {"epsilon": sigma, "x0": alpha, "v": alpha * sigma, "flow": torch.ones_like(level)}
    if name not in by_target:
        raise InputError(
            "convention",
            expected="vp or raw for this target",
            got=f"official, which has no rule for {name}",
        )
    return torch.where(torch.isneginf(level), torch.ones_like(level), by_target[name])


def _unit(level: Tensor) -> tuple[Tensor, Tensor]:
    """α, σ with α² + σ² = 1 at this log-SNR."""
    half = torch.nn.functional.logsigmoid
    return torch.exp(half(level) / 2), torch.exp(half(-level) / 2)


def learnability(
    eigenvalues: NDArray[np.float64], vectors: NDArray[np.float64], signal: NDArray[np.float64], scale: float
) -> float:
    """Share of a signal that lies where the kernel is strong, L(κ) = Σ_k e_k/(e_k+κ) ‖u_kᵀ y‖² / ‖y‖².

    With the trace kernel the same sample-space eigenvectors serve every output dimension (K ⊗ I).

    Args:
        eigenvalues: e_k of K/N, [N].
        vectors: u_k in columns, [N, N].
        signal: y, [N, D]: targets, or residuals.
        scale: κ > 0 in units of the eigenvalues; use one κ for all buckets that are to be compared.

    Returns:
        L in [0, 1]; NaN for a zero signal.

    Raises:
        InputError: κ not positive.
    """
    if not scale > 0:
        raise InputError("kappa", expected="a positive number", got=scale)
    power = np.square(vectors.T @ signal).sum(1)
    total = power.sum()
    kept = np.clip(eigenvalues, 0, None)
    return float((kept / (kept + scale) * power).sum() / total) if total > 0 else math.nan


def half_lives(eigenvalues: NDArray[np.float64]) -> NDArray[np.float64]:
    """ln 2 / e_k, the gradient-flow time in which a residual along u_k halves; infinite where e_k ≤ 0."""
    positive = eigenvalues > 0
    return np.where(positive, math.log(2) / np.where(positive, eigenvalues, 1.0), np.inf)


def median_half_life(
    eigenvalues: NDArray[np.float64], vectors: NDArray[np.float64], residual: NDArray[np.float64]
) -> float:
    """Gradient-flow time until half of the residual's energy is gone: C(τ) = ½, C(τ) = Σ_k ‖u_kᵀ r‖² e^{−2τ e_k} / ‖r‖².

    Args:
        eigenvalues, vectors: of K/N, [N] and [N, N].
        residual: r, [N, D].

    Returns:
        τ in units of 1/e; infinite when half of the energy lies where the kernel has no eigenvalue above
        `RESOLUTION` of its largest.
    """
    power = np.square(vectors.T @ residual).sum(1)
    if power.sum() == 0:
        return math.nan
    share = power / power.sum()
    rates = np.where(eigenvalues > RESOLUTION * eigenvalues.max(initial=0), eigenvalues, 0)
    if share[rates <= 0].sum() >= 0.5 or rates.max() <= 0:
        return math.inf
    low, high = 0.0, 1.0 / rates.max()
    while contraction(rates, share, high) > 0.5:
        high *= 2
        if not math.isfinite(high):
            return math.inf
    for _ in range(80):  # bisection to float64 resolution
        middle = (low + high) / 2
        low, high = (middle, high) if contraction(rates, share, middle) > 0.5 else (low, middle)
    return high


def contraction(eigenvalues: NDArray[np.float64], share: NDArray[np.float64], time: float) -> float:
    """C(τ): what is left of the residual's energy after gradient flow for a time τ; `share` sums to 1 over modes."""
    return float((share * np.exp(-2 * time * eigenvalues)).sum())


@dataclass(frozen=True)
class GradientSignal:
    """Agreement of per-sample gradients g_i, from their Gram matrix G_ij = g_i · g_j.

    Attributes:
        signal: Mean off-diagonal entry, unbiased for ‖E g‖².
        total: Mean diagonal entry, E‖g‖².
        ratio: signal / (total − signal), the gradient signal-to-noise ratio of one sample (may be negative by chance).
    """

    signal: float
    total: float
    ratio: float


def gradient_signal(residual_gram: NDArray[np.float64]) -> GradientSignal:
    """Gradient signal-to-noise from the residual Gram of one bucket, [N, N].

    Raises:
        InputError: fewer than two samples.
    """
    samples = residual_gram.shape[0]
    if samples < 2:
        raise InputError("samples", expected="at least 2 for a gradient signal", got=samples)
    trace = float(np.trace(residual_gram))
    signal = (float(residual_gram.sum()) - trace) / (samples * (samples - 1))
    total = trace / samples
    noise = total - signal
    return GradientSignal(signal, total, signal / noise if noise > 0 else math.nan)


def gradient_cosine(residual_gram: NDArray[np.float64], buckets: int) -> NDArray[np.float64]:
    """Cosine between the mean gradients of buckets: signal_ab / √(signal_aa signal_bb).

    The draws are paired, so entries that share a sample (i = j) are left out of signal_ab as well: it stays the unbiased
    product of two independent means.

    Args:
        residual_gram: [B·N, B·N], bucket-major.
        buckets: B.

    Returns:
        [B, B]; NaN where a bucket's own signal is not positive. Estimates may exceed 1 in size; they are not clipped.
    """
    samples = residual_gram.shape[0] // buckets
    blocks = residual_gram.reshape(buckets, samples, buckets, samples)
    same = np.einsum("aibi->ab", blocks)
    signal = (blocks.sum((1, 3)) - same) / (samples * (samples - 1))
    own = np.where(np.diag(signal) > 0, np.diag(signal), np.nan)
    return signal / np.sqrt(np.outer(own, own))
