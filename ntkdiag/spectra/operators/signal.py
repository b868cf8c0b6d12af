"""Share of a signal's energy along the eigenvectors of an operator, and bounds on how gradient flow removes it.

Lanczos from the signal gives two quadrature rules for Σ_k p_k f(e_k), where p_k is the share of its energy along each
eigenvector. For f = e^{−2τe}, whose derivatives alternate in sign, the Gauss rule lies below and the
Gauss-Radau rule with a node at 0 above (Golub & Meurant 1994, "Matrices, moments and quadrature").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ntkdiag.errors import require_positive_int
from ntkdiag.spectra.operators.block_lanczos import Apply
from ntkdiag.spectra.operators.tridiagonal import gauss_rule, tridiagonalise

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SignalSpectrum:
    """Quadrature rules of one signal.

    Attributes:
        lower, upper: (nodes, weights) of the Gauss rule, and of the rule with a further node at 0; weights sum to 1. Where
            the Krylov space closed the two are the same, and exact.
        products: Number of operator-vector products.
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
        InputError: steps not positive.
    """
    require_positive_int("steps", steps)
    size = float(signal.norm())
    if size == 0:
        return None
    found = tridiagonalise(apply, (signal / size)[:, None], min(steps, len(signal)))
    diagonal, beside = found.diagonal[0], found.beside[0]
    lower = _rule(diagonal, beside[:-1])
    closed = beside[-1] == 0 or found.steps == len(signal)
    upper = lower if closed else _rule(np.append(diagonal, _last_entry(diagonal, beside)), beside)
    return SignalSpectrum(lower, upper, found.steps)


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
