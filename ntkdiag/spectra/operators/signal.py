"""Share of a signal's energy along the eigenvectors of an operator, and bounds on how gradient flow removes it.

Lanczos from the signal gives two quadrature rules for Σ_k p_k f(e_k), where p_k is the share of its energy along each
eigenvector. For f = e^{−2τe}, whose derivatives alternate in sign, the Gauss rule lies below and the
Gauss-Radau rule with a node at 0 above (Golub & Meurant 1994, "Matrices, moments and quadrature").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ntkdiag.errors import InputError, require_positive_int
from ntkdiag.spectra.operators.product import Apply, ScaledOperator, require_precision
from ntkdiag.spectra.operators.tridiagonal import gauss_rule, rounding, tridiagonalise

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SignalSpectrum:
    """Quadrature rules of one signal.

    Attributes:
        lower, upper: (nodes, weights) of the Gauss rule, and of the rule with a further node at 0; weights sum to 1. Where
            the Krylov space closed the two are the same to rounding, and exact.
        products: Number of operator-vector products.

    Example:
        >>> matrix = torch.diag(torch.tensor([2.0, 1.0], dtype=torch.float64))
        >>> found = nd.spectra.signal_spectrum(lambda v: matrix @ v, torch.tensor([1.0, 0.0], dtype=torch.float64))
        >>> found.lower  # all of the signal at the eigenvalue 2
        (array([2.]), array([1.]))
    """

    lower: tuple[Array, Array]
    upper: tuple[Array, Array]
    products: int

    def left(self, times: Array) -> tuple[Array, Array]:
        """Bounds on the share of the signal's energy that is left after gradient flow, C(τ) = Σ_k p_k e^{−2τ e_k}.

        Args:
            times: τ ≥ 0 in units of 1/e, [n].

        Returns:
            low [n] and high [n], in [0, 1].
        """
        low, high = (
            np.exp(-2 * np.multiply.outer(times, nodes)) @ weights
            for nodes, weights in (self.lower, self.upper)
        )
        return np.clip(low, 0, 1), np.clip(np.maximum(low, high), 0, 1)


def signal_spectrum(apply: Apply, signal: Tensor, *, steps: int = 40) -> SignalSpectrum | None:
    """Quadrature rules by Lanczos from a signal.

    Args:
        apply: The operator, [n, b] → [n, b], symmetric and positive semi-definite.
        signal: [n], in the operator's dtype and on its device.
        steps: Number of products, at most n; fewer where the Krylov space closes.

    Returns:
        Rules of `steps` nodes, one more in the upper; None for a signal of zero.

    Raises:
        InputError: steps not positive, a signal that is no vector of finite numbers, an operator that is not square.
        MeasurementError: products that are NaN, infinite, or too small for their dtype.

    Example:
        >>> matrix = torch.diag(torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64))
        >>> signal = torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)
        >>> nodes, weights = nd.spectra.signal_spectrum(lambda v: matrix @ v, signal).lower
        >>> sorted(nodes.round(6).tolist()), weights.round(6).tolist()
        ([2.0, 3.0], [0.5, 0.5])
    """
    require_positive_int("steps", steps)
    _require_signal(signal)
    largest = float(signal.abs().amax())
    if largest == 0:
        return None
    start = (signal / largest)[:, None]  # squares of small or large numbers leave the range of their dtype
    scaled = ScaledOperator(apply, signal, len(signal))
    found = tridiagonalise(scaled, start / start.norm(), min(steps, len(signal)))
    diagonal, beside = found.diagonal[0], found.beside[0]
    lower = _rule(diagonal, beside[:-1])
    closed = beside[-1] == 0 or found.steps == len(signal)
    upper = lower if closed else _rule(np.append(diagonal, _last_entry(diagonal, beside)), beside)
    (low, low_weights), (high, high_weights) = lower, upper
    high = np.where(high > rounding(signal) * high.max(), high, 0.0)  # they may belong to the null space
    return SignalSpectrum(
        (low * scaled.unit, low_weights), (high * scaled.unit, high_weights), scaled.products
    )


def _require_signal(signal: Tensor) -> None:
    require_precision("signal", signal)
    if signal.ndim != 1 or len(signal) == 0 or not bool(torch.isfinite(signal).all()):
        got = "NaN or infinity" if signal.ndim == 1 and len(signal) else f"shape {tuple(signal.shape)}"
        raise InputError("signal", expected="a vector [n] of finite numbers, n ≥ 1", got=got)


def _last_entry(diagonal: Array, beside: Array) -> float:
    """The diagonal entry that gives the matrix, longer by one, the eigenvalue 0 (Golub 1973)."""
    matrix = np.diag(diagonal) + np.diag(beside[:-1], 1) + np.diag(beside[:-1], -1)
    last = np.zeros(len(diagonal))
    last[-1] = beside[-1] ** 2
    return float(np.linalg.lstsq(matrix, last)[0][-1])


def _rule(diagonal: Array, beside: Array) -> tuple[Array, Array]:
    """The Gauss rule with nodes below zero, which are rounding, set to zero."""
    nodes, weights = gauss_rule(diagonal, beside)
    return np.clip(nodes, 0, None), weights
